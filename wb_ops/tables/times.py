"""Times as W&B's server sends them and takes them: ISO 8601 text, UTC where it names no zone."""

from __future__ import annotations

from datetime import UTC, datetime


def to_utc(moment: datetime) -> datetime:
    """Bring a moment to UTC; one without zone is UTC already.

    Raises:
        ValueError: in UTC it is in none of the years 1 to 9999.
    """
    try:
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except OverflowError as error:
        raise ValueError(f"{moment.isoformat()!r} is out of range in UTC") from error


def parse_server_time(text: str) -> datetime:
    """Read a time of the server as UTC; a time without zone is UTC already.

    Raises:
        ValueError: the text is no ISO 8601 time, or none of the years 1 to 9999 in UTC.

    Source: the server sends both `2023-11-05T17:46:35` and `2023-11-05T17:46:35Z`.
    """
    return to_utc(datetime.fromisoformat(text))


def filter_time(moment: datetime) -> str:
    """Write a moment as the server's filters take it: UTC, to the microsecond.

    Raises:
        ValueError: as `to_utc`.
    """
    # strftime("%Y") does not write the year 1 in four digits.
    return to_utc(moment).isoformat(timespec="microseconds").replace("+00:00", "Z")
