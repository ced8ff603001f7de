"""What may stand in a filter: JSON values, ISO times, regular expressions of RE2."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import date, datetime
from numbers import Integral, Real

from wb_ops.errors import InvalidRequest
from wb_ops.tables.times import parse_server_time, to_utc

_ISO = re.compile(
    r"\d{4}-\d\d-\d\d([T ]\d\d(:\d\d(:\d\d(\.\d+)?)?)?(Z|[+-]\d\d(:?\d\d)?)?)?", re.ASCII
)
_ESCAPES_AND_CLASSES = re.compile(r"\\[^1-9]|\[\^?\]?(?:\\.|[^\]\\])*\]", re.DOTALL)
_REFUSED_BY_RE2 = re.compile(r"\(\?(?:[=!>(]|<[=!]|P=)|\\[1-9]|[*+?}]\+")


def parse_time(text: str) -> datetime:
    """Read an ISO 8601 time as UTC; one without zone is UTC already, as on W&B's server.

    Raises:
        ValueError: the text is no ISO 8601 date or time, or none of the years 1 to 9999 in UTC.
    """
    if not _ISO.fullmatch(text):
        raise ValueError(f"{text!r} is no ISO 8601 time")
    return parse_server_time(text)


def time_text(value: object, field: str) -> str:
    """Return the ISO 8601 text, in UTC, of what a time field is compared with.

    A date is its midnight in UTC. A text is kept as it is.

    Raises:
        InvalidRequest: a time without zone or outside of the calendar in UTC, a number, or no ISO
            text (retry: never).
    """
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise InvalidRequest(
                f"{field}: {value} has no time zone. Give one: "
                f"{value!r}.astimezone() if it is local time, .replace(tzinfo=UTC) if it is UTC."
            )
        try:
            return to_utc(value).isoformat().replace("+00:00", "Z")
        except ValueError as error:
            raise InvalidRequest(f"{field}: {error}: give a year from 1 to 9999.") from error
    if isinstance(value, date):
        return f"{value.isoformat()}T00:00:00Z"
    if problem := time_problem(value):
        raise InvalidRequest(f"{field}: {problem}")
    return str(value)


def time_problem(value: object) -> str | None:
    """Say what is wrong with the value of a time field, and the remedy; None: it is right."""
    example = "give ISO 8601 text such as '2026-01-31T00:00:00Z'"
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"{value!r} is a number, which W&B answers with HTTP 500: {example}."
    if isinstance(value, date):
        return f"{value!r} is not JSON: {example}, or build it as filters.created_at >= ..."
    if not isinstance(value, str):
        return f"{value!r} is no time: {example}."
    try:
        parse_time(value)
    except ValueError:
        return f"{value!r} is no ISO 8601 time, or none of the years 1 to 9999 in UTC: {example}."
    return None


def json_value(value: object, field: str) -> object:
    """Return a value as plain JSON types; scalars of numpy and the like become Python's own.

    Raises:
        InvalidRequest: NaN, an infinity, or a type that JSON has no form for (retry: never).
    """
    if isinstance(value, Mapping):
        return {_key(name, field): json_value(member, field) for name, member in value.items()}
    if isinstance(value, list | tuple):
        return [json_value(member, field) for member in value]
    plain = _scalar(value)
    if problem := scalar_problem(plain):
        raise InvalidRequest(f"{field}: {problem}")
    return plain


def scalar_problem(value: object) -> str | None:
    """Say why a scalar cannot be sent as JSON, and the remedy; None: it can."""
    if isinstance(value, float) and not math.isfinite(value):
        return (
            f"{value!r} has no form in JSON, and no comparison finds it: select by "
            "$exists and test the value of each run that comes."
        )
    if value is None or isinstance(value, str | int | float):
        return None
    if isinstance(value, date):
        return f"{value!r} is not JSON: give the text that was logged, such as value.isoformat()."
    return f"{type(value).__name__} is not JSON: give a number, text, bool, None, list or dict."


def regex_problem(pattern: object) -> str | None:
    """Say why W&B cannot take a pattern, and the remedy; None: it can."""
    if not isinstance(pattern, str):
        return f"$regex takes text, not {pattern!r}."
    try:
        re.compile(pattern)
    except re.error as error:
        return f"{pattern!r} is no regular expression ({error})."
    if found := _REFUSED_BY_RE2.search(_ESCAPES_AND_CLASSES.sub("x", pattern)):
        return (
            f"{pattern!r} holds {found[0]!r}: W&B takes RE2, which has no lookaround, "
            "backreference or possessive repeat. Combine simpler patterns with & and ~."
        )
    return None


def _scalar(value: object) -> object:
    if isinstance(value, str):
        return str(value)
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, Integral):
        return int(value)
    return float(value) if isinstance(value, Real) else value


def _key(name: object, field: str) -> str:
    if not isinstance(name, str):
        raise InvalidRequest(f"{field}: the key {name!r} is not text, as JSON needs.")
    return name
