"""Announces the runs of a project that have ended, for Dags that wait for them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseEventTrigger, TriggerEvent

from wb_ops.airflow.operators.arguments import parse_filters
from wb_ops.airflow.triggers.cursor import Cursor, EndedRun
from wb_ops.airflow.triggers.events import class_path, trigger_event
from wb_ops.airflow.triggers.polling import Patience, ask
from wb_ops.airflow.triggers.run import TERMINAL_STATES, checked_states
from wb_ops.tables.times import filter_time, parse_server_time

if TYPE_CHECKING:
    from wb_ops.client.api import Api

CURSOR_KEY = "wandb_runs_finished"
MAX_RUNS_IN_EVENT = 100


class WandbRunsFinishedEventTrigger(BaseEventTrigger):
    """Fires whenever runs of a project have ended; for an AssetWatcher (`wandb_runs_asset`).

    An event says that there is something to export, not what: the export goes by its own
    watermark. Its payload has entity, project, row_count (runs that ended), runs (run_id, name
    and state of up to 100 of them) and watermark (server time of the newest).

    It never ends: what fails is logged and asked again, a rate limit is waited out. On Airflow
    3.3 and newer the asset's state store keeps how far it came, saved one question *after* the
    event, because an event is stored later than it is yielded: a restart repeats an event, and
    loses none. Older versions start again with the last half hour.

    Args:
        entity, project: the W&B project.
        wandb_conn_id: a connection of type `wandb`.
        states: which ends count.
        filters: which runs: a MongoDB-style dict, or JSON text of one.
        poll_interval_s: seconds between two requests.

    Raises:
        InvalidRequest: `states` is text, or `filters` is no dict (retry: never).
    """

    def __init__(
        self,
        entity: str,
        project: str,
        wandb_conn_id: str,
        states: Sequence[str] = TERMINAL_STATES,
        filters: Mapping[str, Any] | str | None = None,
        poll_interval_s: float = 60.0,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow has no types here
        self.entity = entity
        self.project = project
        self.wandb_conn_id = wandb_conn_id
        self.states = list(checked_states("states", states))
        self.filters = parse_filters(filters)
        self.poll_interval_s = poll_interval_s

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return class path and arguments; together they are the watcher's identity."""
        return (
            class_path(self),
            {
                "entity": self.entity,
                "project": self.project,
                "wandb_conn_id": self.wandb_conn_id,
                "states": self.states,
                # As text: Airflow 3.2 gives a watcher a dict in the form in which it stores one.
                "filters": json.dumps(self.filters, sort_keys=True),
                "poll_interval_s": self.poll_interval_s,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield an event for each poll that finds runs that ended; for ever."""
        patience = Patience(self.poll_interval_s)
        cursor = saved = None
        while True:
            try:
                cursor = await self._load() if cursor is None else cursor
                # Only now: the events before it were yielded a whole interval ago.
                saved = await self._save(cursor, saved)
                runs = await ask(self.wandb_conn_id, partial(self._ended, cursor))
            except Exception as exc:
                # Nothing would start a watcher again that ends here.
                pause_s = patience.pause_s(exc)
                self.log.warning("%s; asking again in %.0f s", exc, pause_s, exc_info=True)
                await asyncio.sleep(pause_s)
                continue
            patience.reset()
            new, cursor = cursor.news(runs), cursor.advance(runs)
            if new:
                yield trigger_event(self._payload(new))
            await asyncio.sleep(self.poll_interval_s)

    def _ended(self, cursor: Cursor, api: Api) -> list[EndedRun]:
        # Here: a Dag file is parsed often, and joins no filters.
        from wb_ops.client.filters import all_of

        ended = {
            "state": {"$in": self.states},
            "heartbeatAt": {"$gte": filter_time(cursor.since)},
        }
        wanted = all_of(self.filters, ended)
        nodes = api.source(f"{self.entity}/{self.project}").iter_nodes(wanted)
        return [
            EndedRun(
                run_id=node["name"],
                name=node.get("displayName") or node["name"],
                state=node["state"],
                heartbeat_at=parse_server_time(node["heartbeatAt"]),
            )
            for node in nodes
        ]

    def _payload(self, new: Sequence[EndedRun]) -> dict[str, Any]:
        shown = new[-MAX_RUNS_IN_EVENT:]
        return {
            "entity": self.entity,
            "project": self.project,
            "row_count": len(new),
            "runs": [{"run_id": r.run_id, "name": r.name, "state": r.state} for r in shown],
            "watermark": new[-1].heartbeat_at.isoformat(),
        }

    async def _load(self) -> Cursor:
        store = getattr(self, "asset_state_store", None)
        pages: list[Any] = []
        while store is not None and (page := await store.aget(_key(len(pages)))):
            pages.append(page)
        cursor = Cursor.load(pages) if pages else Cursor.start(datetime.now(UTC))
        self.log.info("watching %s/%s since %s", self.entity, self.project, cursor.since)
        return cursor

    async def _save(self, cursor: Cursor, saved: Cursor | None) -> Cursor:
        store = getattr(self, "asset_state_store", None)
        if store is not None and cursor != saved:
            pages = cursor.dump()
            # The first, which says from when on, comes last: whoever is killed before repeats.
            for number in reversed(range(len(pages))):
                await store.aset(_key(number), pages[number])
            number = len(pages)
            while await store.aget(_key(number)):
                await store.adelete(_key(number))
                number += 1
        return cursor


def _key(page: int) -> str:
    """One project rarely needs more than one page."""
    return CURSOR_KEY if page == 0 else f"{CURSOR_KEY}_{page}"
