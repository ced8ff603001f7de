"""What triggers tell workers: an event is a small dict with a `status`.

An error of ours keeps its class, facts and advice on the way, so that the worker raises what the
trigger met and the retry policy decides as if it had happened in the task.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from wb_ops import errors
from wb_ops.errors import Advice, AdviceKind, ExportIncomplete, WbOpsError

ERROR = "error"


def trigger_event(payload: dict[str, Any]) -> TriggerEvent:
    """Return Airflow's event with this payload."""
    return TriggerEvent(payload)  # type: ignore[no-untyped-call]  # Airflow has no types here


def class_path(trigger: BaseTrigger) -> str:
    """Return what a triggerer imports the class of a trigger by."""
    return f"{type(trigger).__module__}.{type(trigger).__qualname__}"


def error_event(error: WbOpsError) -> dict[str, Any]:
    """Return the event that stands for an error: plain JSON values, no secret."""
    return {
        "status": ERROR,
        "error": type(error).__name__,
        "message": error.message,
        "facts": error.facts,
        "advice": {"kind": error.advice.kind.value, "seconds": error.advice.seconds},
    }


def error_from_event(event: Mapping[str, Any]) -> WbOpsError:
    """Return the error that `error_event` was made of.

    Raises:
        RuntimeError: the event names a class that this version does not have.
    """
    cls = getattr(errors, str(event.get("error")), None)
    if not (isinstance(cls, type) and issubclass(cls, WbOpsError)):
        raise RuntimeError(
            f"A trigger sent the error {event.get('error')!r}, which this version of wb-ops does "
            f"not know ({event.get('message')}): run the same version in triggerer and workers."
        )
    if issubclass(cls, ExportIncomplete):
        advice = event["advice"]
        cause = Advice(AdviceKind(advice["kind"]), advice["seconds"])
        return cls(event["message"], [cause], **event["facts"])
    return cls(event["message"], **event["facts"])


def checked_event(event: Mapping[str, Any] | None, *expected: str) -> Mapping[str, Any]:
    """Return an event whose status is one of the expected ones.

    Raises:
        WbOpsError: the one that the event stands for.
        RuntimeError: no event, or one that nobody here waits for.
    """
    status = event.get("status") if isinstance(event, Mapping) else None
    if event is not None and status == ERROR:
        raise error_from_event(event)
    if event is None or status not in expected:
        raise RuntimeError(f"The trigger sent {event!r}; expected a status of {expected}.")
    return event
