"""Waits for a rate limit in the triggerer, where waiting costs no worker."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from wb_ops.airflow.triggers.events import class_path, trigger_event

THROTTLED = "throttled"


class ThrottleTrigger(BaseTrigger):
    """Fires at a moment and repeats how often the task has been throttled.

    The count travels in the event, because what is given to `defer(kwargs=)` is lost in
    `dag.test()`. The moment is absolute: a restarted triggerer does not wait again.

    Args:
        until_epoch_s: when to fire, in seconds since 1970.
        throttles: how often this try of the task has been throttled.
    """

    def __init__(self, until_epoch_s: float, throttles: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow has no types here
        self.until_epoch_s = until_epoch_s
        self.throttles = throttles

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return class path and arguments."""
        return (
            class_path(self),
            {"until_epoch_s": self.until_epoch_s, "throttles": self.throttles},
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield one event: status "throttled", and the count."""
        await asyncio.sleep(max(0.0, self.until_epoch_s - time.time()))
        yield trigger_event({"status": THROTTLED, "throttles": self.throttles})
