"""W&B's run filters: Mongo-style queries over documented field names.

Source: the SDK's docstring of ``Api.runs`` (0.31.0) for fields and operators. Unknown operators and
numeric dates answer HTTP 500, as the hosted service was seen to do (opentensor/validators#136).
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

from wb_ops.devserver.jsontext import Json
from wb_ops.devserver.wire_time import to_wire_time


class Fields(Protocol):
    """What a predicate reads from a run."""

    def value(self, path: str) -> Json:
        """The value at a field path, or None where there is none."""


Predicate: TypeAlias = Callable[[Fields], bool]
Test: TypeAlias = Callable[[Json], bool]

COLUMNS = {
    "createdAt": "created_at",
    "created_at": "created_at",
    "heartbeatAt": "heartbeat_at",
    "heartbeat_at": "heartbeat_at",
    "updatedAt": "updated_at",
    "updated_at": "updated_at",
    "displayName": "display_name",
    "display_name": "display_name",
    "name": "name",
    "state": "state",
    "tags": "tags",
    "group": "run_group",
    "jobType": "job_type",
    "job_type": "job_type",
    "username": "username",
    "sweep": "sweep",
    "host": "host",
    "duration": "duration",
}
"""Field name on the wire -> column; other names match nothing, as an unknown key does."""

DATE_COLUMNS = frozenset({"created_at", "heartbeat_at", "updated_at"})


class FilterServerError(ValueError):
    """The hosted service answers this filter with HTTP 500."""


class FilterRefusedError(ValueError):
    """The filter names something that is no run field (HTTP 400)."""


def compile_filter(query: Json) -> Predicate:
    """Turn a filter into a predicate.

    Raises:
        FilterServerError: an unknown operator, a numeric date, an invalid regex.
        FilterRefusedError: a path below ``summary.``, or a filter that is no object.
    """
    if not isinstance(query, dict):
        raise FilterRefusedError("filters must be a JSON object")
    return _all_of([_compile_entry(key, value) for key, value in query.items()])


def _compile_entry(key: str, value: Json) -> Predicate:
    if key in ("$and", "$or", "$nor"):
        if not isinstance(value, list):
            raise FilterServerError(f"{key} takes a list")
        parts = [compile_filter(part) for part in value]
        if key == "$and":
            return _all_of(parts)
        return _any_of(parts) if key == "$or" else _negated(_any_of(parts))
    if key == "$not":
        return _negated(compile_filter(value))
    if key.startswith("$"):
        raise FilterServerError(f"unknown operator {key}")
    if key.startswith("summary."):
        raise FilterRefusedError(f"invalid filter key {key}: use summary_metrics.")
    return _compile_field(key, value)


def _all_of(parts: list[Predicate]) -> Predicate:
    return lambda run: all(part(run) for part in parts)


def _any_of(parts: list[Predicate]) -> Predicate:
    return lambda run: any(part(run) for part in parts)


def _negated(part: Predicate) -> Predicate:
    return lambda run: not part(run)


def _compile_field(path: str, condition: Json) -> Predicate:
    is_date = COLUMNS.get(path) in DATE_COLUMNS
    if isinstance(condition, dict) and any(key.startswith("$") for key in condition):
        tests = [_compile_operator(name, arg, is_date) for name, arg in condition.items()]
    else:
        tests = [_compile_operator("$eq", condition, is_date)]
    return lambda run: all(test(run.value(path)) for test in tests)


def _compile_operator(name: str, operand: Json, is_date: bool) -> Test:
    if name == "$not":
        if not isinstance(operand, dict):
            raise FilterServerError("$not takes an object of operators")
        tests = [_compile_operator(key, value, is_date) for key, value in operand.items()]
        return lambda value: not all(test(value) for test in tests)
    if name == "$exists":
        return lambda value: (value is not None) == bool(operand)
    if name == "$regex":
        return _regex(operand)
    if name in ("$in", "$nin"):
        return _membership(name, operand, is_date)
    if name in ("$eq", "$ne"):
        wanted = _operand(operand, is_date)
        return lambda value: _equals(value, wanted) == (name == "$eq")
    if name in _COMPARISONS:
        return _comparison(name, _operand(operand, is_date))
    raise FilterServerError(f"unknown operator {name}")


def _operand(operand: Json, is_date: bool) -> Json:
    if not is_date or operand is None:
        return operand
    if not isinstance(operand, str):
        raise FilterServerError("dates must be ISO 8601 strings")
    try:
        return to_wire_time(operand)
    except ValueError as error:
        raise FilterServerError(f"not a date: {operand}") from error


def _regex(operand: Json) -> Test:
    if not isinstance(operand, str):
        raise FilterServerError("$regex takes a string")
    try:
        pattern = re.compile(operand)
    except re.error as error:
        raise FilterServerError(f"invalid regex: {error}") from error
    return lambda value: any(
        isinstance(item, str) and pattern.search(item) is not None for item in _items(value)
    )


def _membership(name: str, operand: Json, is_date: bool) -> Test:
    if not isinstance(operand, list):
        raise FilterServerError(f"{name} takes a list")
    wanted = [_operand(item, is_date) for item in operand]
    return lambda value: any(_equals(value, item) for item in wanted) == (name == "$in")


def _items(value: Json) -> list[Json]:
    return value if isinstance(value, list) else [value]


def _equals(value: Json, wanted: Json) -> bool:
    if isinstance(value, list) and not isinstance(wanted, list):
        return (not value and wanted is None) or any(_same(item, wanted) for item in value)
    return _same(value, wanted)


def _same(left: Json, right: Json) -> bool:
    return isinstance(left, bool) == isinstance(right, bool) and left == right


_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "$gt": operator.gt,
    "$gte": operator.ge,
    "$lt": operator.lt,
    "$lte": operator.le,
}


def _comparison(name: str, operand: Json) -> Test:
    compare = _COMPARISONS[name]
    return lambda value: _comparable(value, operand) and compare(value, operand)


def _comparable(left: Json, right: Json) -> bool:
    if isinstance(left, str) or isinstance(right, str):
        return isinstance(left, str) and isinstance(right, str)
    return _is_number(left) and _is_number(right)


def _is_number(value: Json) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
