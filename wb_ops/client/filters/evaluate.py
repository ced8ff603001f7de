"""Tells whether a run matches a filter, without asking the server.

The meaning is MongoDB's, which W&B's guide refers to: null and "not there" are equal to each
other, and `$ne` and `$nin` hold for both; values of different types are neither equal nor
ordered; a list matches where one of its elements does.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from wb_ops.client.filters.check import require_valid
from wb_ops.client.filters.names import ORDERINGS, TIME_FIELDS, canonical
from wb_ops.client.filters.node import MISSING, RunView
from wb_ops.client.filters.values import parse_time

if TYPE_CHECKING:
    from wb_ops.client.run import Run

_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "$gt": operator.gt,
    "$gte": operator.ge,
    "$lt": operator.lt,
    "$lte": operator.le,
}


def matches(filters: Mapping[str, Any], run: Mapping[str, Any] | Run) -> bool:
    """Tell whether a run matches; what `check` only warns of is evaluated.

    A key that itself holds dots is found here, unlike on the server, and goes before a nested
    member. `duration` is the time from creation to the last heartbeat. Regular expressions are
    searched with Python's `re`.

    Args:
        filters: a filter; an empty one matches every run.
        run: a `Run`, as it was when it was read; the run as the server sends it (`config` and
            `summaryMetrics` as JSON text), or what `run_node` makes of a run's values.

    Raises:
        InvalidRequest: `check` finds an error, or the filter names a field that `run` was read
            without (retry: never).
        MalformedResponse: the run's config or summary is no JSON object (retry: backoff).
    """
    require_valid(filters)
    return _matches(filters, RunView(run if isinstance(run, Mapping) else run.load()))


def _matches(filters: Mapping[str, Any], run: RunView) -> bool:
    return all(_clause(name, wanted, run) for name, wanted in filters.items())


def _clause(name: str, wanted: Any, run: RunView) -> bool:
    if name == "$and":
        return all(_matches(one, run) for one in wanted)
    if name == "$or":
        return any(_matches(one, run) for one in wanted)
    if name == "$nor":
        return not any(_matches(one, run) for one in wanted)
    if name == "$not":
        return not _matches(wanted, run)
    found = run.value(name)
    is_time = canonical(name) in TIME_FIELDS
    if isinstance(wanted, Mapping) and any(key.startswith("$") for key in wanted):
        return all(_holds(key, one, found, is_time) for key, one in wanted.items())
    return _holds("$eq", wanted, found, is_time)


def _holds(name: str, wanted: Any, found: object, is_time: bool) -> bool:
    if name == "$exists":
        return (found is not MISSING) == bool(wanted)
    if name == "$regex":
        return any(isinstance(one, str) and re.search(wanted, one) for one in _elements(found))
    if name == "$not":
        return not all(_holds(key, one, found, is_time) for key, one in wanted.items())
    if is_time:
        wanted, found = _instants(wanted), _instants(found)
    if name in ORDERINGS:
        compare = _COMPARE[name]
        return any(_same_type(one, wanted) and compare(one, wanted) for one in _elements(found))
    if name in ("$in", "$nin"):
        return any(_equals(found, one) for one in wanted) == (name == "$in")
    return _equals(found, wanted) == (name == "$eq")


def _elements(found: object) -> list[object]:
    """A list matches as a whole and by its elements."""
    return [found, *found] if isinstance(found, list) else [found]


def _equals(found: object, wanted: object) -> bool:
    if wanted is None:
        return found is MISSING or None in _elements(found)
    return any(_identical(one, wanted) for one in _elements(found))


def _identical(one: object, other: object) -> bool:
    """Equal in type and value all the way down; the order of an object's keys does not count."""
    if isinstance(one, dict) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(_identical(one[k], other[k]) for k in one)
    if isinstance(one, list) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(_identical, one, other))
    return (one is None and other is None) or (_same_type(one, other) and one == other)


def _same_type(one: object, other: object) -> bool:
    """Whether two values are of one type that has an order; True is no number in JSON."""
    if isinstance(one, bool) or isinstance(other, bool):
        return isinstance(one, bool) and isinstance(other, bool)
    return any(
        isinstance(one, kind) and isinstance(other, kind) for kind in (int | float, str, datetime)
    )


def _instants(value: object) -> object:
    if isinstance(value, list | tuple):
        return [_instants(one) for one in value]
    return parse_time(value) if isinstance(value, str) else value
