"""An error crosses from the triggerer to a worker as an event, and stays the same error."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from wb_ops.errors import (
    Advice,
    AdviceKind,
    AuthenticationFailed,
    ExportIncomplete,
    RateLimited,
    WbOpsError,
)

FACTS = {
    "operation": "Runs",
    "path": "ann/demo",
    "http_status": 429,
    "request_id": "abc",
    "attempts": 2,
    "retry_after_s": 12.5,
}


def subclasses(cls: type[WbOpsError]) -> Iterator[type[WbOpsError]]:
    for one in cls.__subclasses__():
        if not one.__name__.startswith("_"):
            yield one
        yield from subclasses(one)


@pytest.fixture(autouse=True)
def _airflow(airflow_home: Any) -> None:
    """Triggers import Airflow."""


@pytest.mark.parametrize("cls", sorted(set(subclasses(WbOpsError)), key=lambda cls: cls.__name__))
def test_every_error_comes_back(cls: type[WbOpsError]) -> None:
    """Class, message, facts and advice, through JSON."""
    from wb_ops.airflow.triggers.events import checked_event, error_event

    error = cls("what failed", **FACTS)
    event = json.loads(json.dumps(error_event(error)))
    with pytest.raises(cls, match="what failed") as raised:
        checked_event(event, "ended")
    assert type(raised.value) is cls
    assert raised.value.facts == error.facts
    assert raised.value.advice == error.advice


@pytest.mark.parametrize(
    "advice", [Advice(AdviceKind.AFTER, 3.0), Advice(AdviceKind.BACKOFF), Advice(AdviceKind.NEVER)]
)
def test_an_incomplete_export_keeps_its_runs_advice(advice: Advice) -> None:
    """Its advice is not that of its class."""
    from wb_ops.airflow.triggers.events import error_event, error_from_event

    error = ExportIncomplete("some runs", [advice])
    assert error_from_event(error_event(error)).advice == advice


@pytest.mark.airflow_3_3
def test_the_policy_decides_as_in_the_task() -> None:
    """The delay survives the triggerer."""
    from wb_ops.airflow import WandbRetryPolicy
    from wb_ops.airflow.triggers.events import error_event, error_from_event

    limited = error_from_event(error_event(RateLimited("slow", http_status=429, retry_after_s=7)))
    assert WandbRetryPolicy().evaluate(limited, 1, 4).reason == "W&B 429 Retry-After=7s"
    refused = error_from_event(error_event(AuthenticationFailed("who?", http_status=401)))
    assert WandbRetryPolicy().evaluate(refused, 1, 4).action.value == "fail"


@pytest.mark.parametrize(
    "event",
    [
        None,
        {},
        {"status": "success"},
        {"status": "error", "error": "Newer", "message": "?", "facts": {}},
        {"status": "error", "error": "AdviceKind", "message": "?", "facts": {}},
    ],
    ids=str,
)
def test_an_unknown_event_is_no_success(event: dict[str, Any] | None) -> None:
    """Silence, another version's status and another version's error all fail the try."""
    from wb_ops.airflow.triggers.events import checked_event

    with pytest.raises(RuntimeError, match="trigger sent"):
        checked_event(event, "ended")
