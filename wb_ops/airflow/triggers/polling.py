"""How triggers ask W&B again and again: in a thread, with patience for what heals."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

import wb_ops
from wb_ops.airflow.hooks.wandb import WandbHook
from wb_ops.airflow.waits import doubled, is_throttle, throttle_wait_s
from wb_ops.errors import WbOpsError

if TYPE_CHECKING:
    from wb_ops.client.api import Api
    from wb_ops.settings import Settings

T = TypeVar("T")

MAX_FAILURES = 5
MAX_PAUSE_S = 600.0


async def ask(wandb_conn_id: str, question: Callable[[Api], T]) -> T:
    """Call `question` with a client of the connection, in a thread.

    The connection is read each time, so a changed key is used from the next question on. The
    client makes one attempt and sleeps for no rate limit: a trigger's own loop waits, and no
    thread of the triggerer with it.

    Raises:
        WbOpsError: by the table in `errors`.
    """
    settings = await WandbHook(wandb_conn_id).aget_settings()
    return await asyncio.to_thread(_answer, settings, question)


def _answer(settings: Settings, question: Callable[[Api], T]) -> T:
    with wb_ops.Api(settings=replace(settings, max_attempts=1, max_wait_s=0.0)) as api:
        return question(api)


@dataclass(slots=True)
class Patience:
    """How long to pause after a failed question, and when to ask no more.

    Attributes:
        interval_s: the pause between two questions.
        failures: how many questions in a row have failed; a rate limit is no failure.
        throttles: how many in a row met a rate limit.
    """

    interval_s: float
    failures: int = 0
    throttles: int = 0

    def reset(self) -> None:
        """Note that an answer came."""
        self.failures = self.throttles = 0

    def pause_s(self, exc: Exception) -> float:
        """Note a failure and return the seconds until the next question.

        A rate limit is waited for as long as the server says, an interval at least and an hour
        at most; where it names no time, and after other failures, twice as long each time.
        """
        if isinstance(exc, WbOpsError) and is_throttle(exc):
            self.throttles += 1
            asked_s = throttle_wait_s(exc, self.throttles - 1, self.interval_s)
            return max(asked_s, self.interval_s)
        self.failures += 1
        longest_s: float = max(MAX_PAUSE_S, self.interval_s)
        return min(doubled(self.interval_s, self.failures - 1), longest_s)

    def is_over(self, error: WbOpsError) -> bool:
        """Whether asking again cannot help, or has failed too often."""
        return not error.advice.retryable or self.failures > MAX_FAILURES
