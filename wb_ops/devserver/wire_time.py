"""Timestamps as W&B writes them: ISO 8601, UTC, without a zone."""

from __future__ import annotations

from datetime import UTC, datetime


def now_text() -> str:
    """The present moment in W&B's form, with microseconds."""
    return to_wire_time(datetime.now(UTC))


def to_wire_time(value: datetime | str) -> str:
    """Bring a time to W&B's form; strings in that form sort as the times do.

    A time without a zone is UTC, as in W&B's answers.

    Raises:
        ValueError: a string is not an ISO 8601 time.
    """
    moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    if moment.tzinfo is not None:
        moment = moment.astimezone(UTC).replace(tzinfo=None)
    return moment.isoformat()


def seconds_between(start: str, end: str) -> float:
    """Seconds from one wire time to another."""
    return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()
