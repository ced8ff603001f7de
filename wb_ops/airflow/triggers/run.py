"""Waits until one W&B run has ended."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from wb_ops.airflow.triggers.events import class_path, error_event, trigger_event
from wb_ops.airflow.triggers.polling import Patience, ask
from wb_ops.errors import InvalidRequest, WbOpsError

if TYPE_CHECKING:
    from wb_ops.client.api import Api

ENDED, TIMEOUT = "ended", "timeout"
TERMINAL_STATES = ("finished", "failed", "crashed", "killed")


class WandbRunTrigger(BaseTrigger):
    """Fires once, when a run is in one of `states`, when the deadline is over, or on an error.

    The event's status is "ended" (with run_id, state and url), "timeout" or "error". A rate
    limit and a server that is away for a while are waited out here.

    Args:
        run: entity/project/run_id, project/run_id, or the URL of the run's page.
        states: the states to wait for.
        wandb_conn_id: a connection of type `wandb`.
        poll_interval_s: seconds between two requests.
        deadline_epoch_s: when to give up, in seconds since 1970; None: never.

    Raises:
        InvalidRequest: `states` is text (retry: never).
    """

    def __init__(
        self,
        run: str,
        wandb_conn_id: str,
        states: Sequence[str] = TERMINAL_STATES,
        poll_interval_s: float = 60.0,
        deadline_epoch_s: float | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow has no types here
        self.run_path = run
        self.wandb_conn_id = wandb_conn_id
        self.states = list(checked_states("states", states))
        self.poll_interval_s = poll_interval_s
        self.deadline_epoch_s = deadline_epoch_s

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return class path and arguments."""
        return (
            class_path(self),
            {
                "run": self.run_path,
                "wandb_conn_id": self.wandb_conn_id,
                "states": self.states,
                "poll_interval_s": self.poll_interval_s,
                "deadline_epoch_s": self.deadline_epoch_s,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield one event."""
        try:
            event = await self._wait()
        except WbOpsError as error:
            event = error_event(error)
        yield trigger_event(event)

    async def _wait(self) -> dict[str, Any]:
        patience = Patience(self.poll_interval_s)
        while True:
            pause_s = self.poll_interval_s
            try:
                found = await ask(self.wandb_conn_id, self._read)
            except WbOpsError as error:
                pause_s = patience.pause_s(error)
                if patience.is_over(error):
                    raise
                self.log.warning("%s; asking again in %.0f s", error, pause_s)
            else:
                patience.reset()
                if found["state"] in self.states:
                    return {"status": ENDED, **found}
            left_s = self._left_s()
            if left_s <= 0:
                return {"status": TIMEOUT, "run": self.run_path}
            await asyncio.sleep(min(pause_s, left_s))

    def _read(self, api: Api) -> dict[str, str]:
        run = api.run(self.run_path)
        return {"run_id": run.id, "state": run.state, "url": run.url}

    def _left_s(self) -> float:
        if self.deadline_epoch_s is None:
            return float("inf")
        return self.deadline_epoch_s - time.time()


def checked_states(name: str, states: Sequence[str]) -> tuple[str, ...]:
    """Return states as they are; text is not taken for its letters.

    Raises:
        InvalidRequest: it is text (retry: never).
    """
    if isinstance(states, str):
        raise InvalidRequest(f'{name}={states!r}: give a list of states, such as ["finished"].')
    return tuple(states)
