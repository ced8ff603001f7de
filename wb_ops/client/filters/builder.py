"""Conditions on runs as Python expressions: `config("lr") > 0.1`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date
from typing import NoReturn, TypeAlias

from wb_ops.client.filters.names import CONFIG, SUMMARY
from wb_ops.client.filters.values import json_value, regex_problem, time_text
from wb_ops.errors import InvalidRequest

# What has an order; a datetime is a date.
Ordered: TypeAlias = float | str | date


class Filter(dict[str, object]):
    """A MongoDB-style filter: a plain dict that also combines with `&`, `|` and `~`.

    It goes wherever `filters=` is taken, W&B's own SDK included, and pickles and prints as a
    dict. An empty one matches every run. `Filter({...})` takes a dict written by hand.

    `&`, `|` and `~` bind tighter than comparisons, so each comparison stands in parentheses.
    Python gives `and`, `or`, `not` and `0.1 < x < 0.5` only one of their sides: they cannot be
    used.
    """

    def __and__(self, other: Mapping[str, object]) -> Filter:
        """Runs that match both."""
        return all_of(self, _operand(other))

    def __rand__(self, other: Mapping[str, object]) -> Filter:
        """Runs that match both."""
        return all_of(_operand(other), self)

    def __or__(self, other: Mapping[str, object]) -> Filter:  # type: ignore[override]  # not dict's merge: that would drop a condition on the same field
        """Runs that match at least one."""
        return any_of(self, _operand(other))

    def __ror__(self, other: Mapping[str, object]) -> Filter:  # type: ignore[override]  # as __or__
        """Runs that match at least one."""
        return any_of(_operand(other), self)

    def __ior__(self, other: Mapping[str, object]) -> Filter:  # type: ignore[override]  # as __or__; dict's would change this filter in place
        """Runs that match at least one; makes a new filter."""
        return self | other

    def __invert__(self) -> Filter:
        """Runs that do not match."""
        return Filter({"$nor": [dict(self)]})

    def to_dict(self) -> dict[str, object]:
        """Return a copy made of plain dicts and lists."""
        return {name: json_value(value, name) for name, value in self.items()}


class Field:
    """A field of a run; comparing it makes a `Filter`."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"<Field {self.name}>"

    def __eq__(self, value: object) -> Filter:  # type: ignore[override]  # a comparison is a condition here, not a bool
        """Equal; None: null or not there. Of a list: one element, or the whole list."""
        wanted = self._value(value)
        return Filter({self.name: {"$eq": wanted} if isinstance(wanted, dict) else wanted})

    def __ne__(self, value: object) -> Filter:  # type: ignore[override]  # as __eq__
        """Not equal; also where the field is not there."""
        return self._condition("$ne", self._value(value))

    def __gt__(self, value: Ordered) -> Filter:
        """Greater; only values of the same type compare."""
        return self._condition("$gt", self._ordered(value))

    def __ge__(self, value: Ordered) -> Filter:
        """Greater or equal; only values of the same type compare."""
        return self._condition("$gte", self._ordered(value))

    def __lt__(self, value: Ordered) -> Filter:
        """Less; only values of the same type compare."""
        return self._condition("$lt", self._ordered(value))

    def __le__(self, value: Ordered) -> Filter:
        """Less or equal; only values of the same type compare."""
        return self._condition("$lte", self._ordered(value))

    def is_in(self, values: Iterable[object]) -> Filter:
        """Equal to one of the values."""
        return self._condition("$in", self._values(values))

    def not_in(self, values: Iterable[object]) -> Filter:
        """Equal to none of the values; also where the field is not there."""
        return self._condition("$nin", self._values(values))

    def exists(self) -> Filter:
        """The field is there, whatever it holds."""
        return self._condition("$exists", True)

    def matches(self, pattern: str) -> Filter:
        """The text holds a match of a regular expression of RE2; `(?i)` ignores case.

        Raises:
            InvalidRequest: RE2 does not take the pattern (retry: never).
        """
        if problem := regex_problem(pattern):
            raise InvalidRequest(f"{self.name}: {problem}")
        return self._condition("$regex", pattern)

    def _condition(self, operator: str, value: object) -> Filter:
        return Filter({self.name: {operator: value}})

    def _value(self, value: object) -> object:
        return json_value(value, self.name)

    def _ordered(self, value: object) -> object:
        wanted = self._value(value)
        if wanted is None or isinstance(wanted, list | dict):
            raise InvalidRequest(f"{self.name}: {value!r} has no order; use == or is_in([...]).")
        return wanted

    def _values(self, values: Iterable[object]) -> list[object]:
        if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
            raise InvalidRequest(f"{self.name}: give a list of values, not {values!r}.")
        return [self._value(value) for value in values]

    def _refuse(self, other: object) -> NoReturn:
        raise InvalidRequest(
            f"{self.name} is combined before it is compared: & and | bind tighter than == and >. "
            "Put each comparison in parentheses: (a == 1) & (b > 2)."
        )

    __and__ = __rand__ = __or__ = __ror__ = _refuse


class TimeField(Field):
    """A time of a run; takes datetimes with a zone, dates (midnight UTC) and ISO 8601 texts."""

    def _value(self, value: object) -> object:
        return None if value is None else time_text(value, self.name)


class TagsField(Field):
    """The tags of a run; `is_in` means at least one of several."""

    def contains(self, tag: str) -> Filter:
        """The run has this tag."""
        return self == tag

    def exists(self) -> Filter:
        """The run has at least one tag."""
        return self != None  # noqa: E711  # builds a condition

    def _value(self, value: object) -> object:
        if value is not None and not isinstance(value, str):
            raise InvalidRequest(
                f"tags: {value!r} is not one tag, and W&B answers a list with HTTP 500: "
                "tags.is_in([...]) for any of several, tags.contains(a) & tags.contains(b) for all."
            )
        return value


def config(*keys: str) -> Field:
    """Return a config value as a field; several keys lead into a nested dict.

    `config("model", "depth")` is the member `depth` of `model`. A single key with dots is
    ambiguous on the server; `check` warns of it.
    """
    first, *rest = _checked(CONFIG, keys)
    # Nested members are addressed by the path as it is stored, which only one reading fits.
    return Field(".".join([CONFIG, first, *(["value", *rest] if rest else [])]))


def summary(*keys: str) -> Field:
    """Return a summary value as a field; several keys lead into a nested dict."""
    return Field(".".join([SUMMARY, *_checked("summary", keys)]))


def all_of(*filters: Mapping[str, object]) -> Filter:
    """Join filters: runs that match all of them; every run where there are none."""
    parts = [part for one in filters if one for part in _parts("$and", one)]
    return Filter(parts[0]) if len(parts) == 1 else Filter({"$and": parts} if parts else {})


def any_of(*filters: Mapping[str, object]) -> Filter:
    """Join filters: runs that match at least one of them.

    Raises:
        InvalidRequest: there are none, so nothing could match (retry: never).
    """
    if not filters:
        raise InvalidRequest("any_of() of no filters would match no run: give at least one.")
    if not all(filters):
        return Filter()
    parts = [part for one in filters for part in _parts("$or", one)]
    return Filter(parts[0]) if len(parts) == 1 else Filter({"$or": parts})


def _parts(operator: str, one: Mapping[str, object]) -> list[dict[str, object]]:
    inner = one.get(operator)
    if len(one) > 1 or not isinstance(inner, list) or not inner:
        return [dict(one)]
    # What is no list of filters stays as it is written: `check` refuses it.
    return list(inner) if all(isinstance(part, dict) for part in inner) else [dict(one)]


def _operand(other: object) -> Mapping[str, object]:
    if isinstance(other, Mapping):
        return other
    raise InvalidRequest(
        f"{other!r} is no filter. Where it belongs to a comparison, put that in parentheses: "
        "(a == 1) & (b > 2)."
    )


def _checked(what: str, keys: tuple[str, ...]) -> tuple[str, ...]:
    if not keys or not all(isinstance(key, str) and key for key in keys):
        raise InvalidRequest(f"{what}{keys!r}: give the name of a key, such as {what}('lr').")
    if len(keys) > 1 and any("." in key for key in keys):
        raise InvalidRequest(
            f"{what}{keys!r}: a key inside a nested dict that itself holds a dot cannot be "
            "addressed. List the runs without this condition and test each one's value."
        )
    return keys
