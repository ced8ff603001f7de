"""Finds mistakes in a filter before it is sent.

The server answers some of them with HTTP 500, which clients retry for minutes, and others with
an empty list, which looks like an answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any

from wb_ops.client.filters.fields import check_field, check_value
from wb_ops.client.filters.findings import Finding, Severity, error, warning
from wb_ops.client.filters.names import COMPARISONS, LOGIC, MEMBERSHIP, OPERATORS, ORDERINGS
from wb_ops.client.filters.values import regex_problem
from wb_ops.errors import InvalidRequest

MAX_NESTING = 100

_REMEDIES = {
    "$all": "one condition for each value, joined by $and",
    "$contains": "{'tags': tag} for a tag, $regex for a part of a text",
    "$elemMatch": "$in, or test the runs that come with filters.matches()",
    "$like": "$regex",
    "$options": "flags inside the pattern, such as '(?i)abc'",
    "$size": "a test of the runs that come",
    "$sort": "order=, such as '-summary_metrics.loss'",
    "$limit": "a slice of the result, such as runs[:10]",
    "$xor": "$and, $or and $nor",
}


def check(filters: Mapping[str, Any]) -> list[Finding]:
    """Return everything that is wrong with a filter, in the order in which it is written.

    Needs no network. An empty list means that the server takes the filter and that no known
    trap is in it, not that the fields exist.
    """
    if _is_deeper(filters, MAX_NESTING):
        return [
            error(
                "filters",
                f"nests more than {MAX_NESTING} dicts and lists: one $and or $or takes any number "
                "of conditions in its list.",
            )
        ]
    return list(_query(filters, "filters"))


def require_valid(filters: Mapping[str, Any]) -> None:
    """Refuse a filter that has errors; warnings pass.

    Raises:
        InvalidRequest: `check` finds errors; the message has them all (retry: never).
    """
    errors = [finding for finding in check(filters) if finding.severity is Severity.ERROR]
    if errors:
        raise InvalidRequest("\n".join(f"{one.path}: {one.message}" for one in errors))


def _is_deeper(value: object, levels: int) -> bool:
    if isinstance(value, Mapping):
        value = list(value.values())
    if not isinstance(value, list | tuple):
        return False
    return levels == 0 or any(_is_deeper(one, levels - 1) for one in value)


def _query(query: object, path: str) -> Iterator[Finding]:
    if not isinstance(query, Mapping):
        yield error(path, f"{query!r} is no filter: give a dict, such as {{'state': 'finished'}}.")
        return
    for name, wanted in query.items():
        here = f"{path}[{name!r}]"
        if not isinstance(name, str):
            yield error(here, f"the key {name!r} is not text: keys are field names or operators.")
        elif name in LOGIC:
            yield from _conditions(name, wanted, here)
        elif name == "$not":
            yield from _undocumented_not(here)
            yield from _query(wanted, here)
        elif name.startswith("$"):
            yield error(here, _unknown_operator(name))
        else:
            yield from check_field(name, here)
            yield from _condition(name, wanted, here)


def _conditions(name: str, wanted: object, path: str) -> Iterator[Finding]:
    if not isinstance(wanted, list | tuple) or not wanted:
        yield error(path, f"{name} takes a list of at least one filter, not {wanted!r}.")
        return
    for index, one in enumerate(wanted):
        yield from _query(one, f"{path}[{index}]")


def _condition(field: str, wanted: object, path: str) -> Iterator[Finding]:
    operators = _operators(wanted)
    if operators is None:
        yield from check_value(field, "$eq", wanted, path)
        return
    for name, operand in operators.items():
        here = f"{path}[{name!r}]"
        if name == "$not" and _operators(operand) is not None:
            yield from _undocumented_not(here)
            yield from _condition(field, operand, here)
        elif name == "$not":
            yield error(here, f"$not takes operators, not {operand!r}: use $ne.")
        elif name not in COMPARISONS:
            yield error(here, _unknown_operator(name))
        else:
            yield from _operand(field, name, operand, here)


def _operators(wanted: object) -> Mapping[object, object] | None:
    """The operators of a condition, or None where it is a value to be equal to."""
    if not isinstance(wanted, Mapping):
        return None
    return wanted if any(str(name).startswith("$") for name in wanted) else None


def _operand(field: str, name: str, operand: object, path: str) -> Iterator[Finding]:
    if name == "$regex":
        if problem := regex_problem(operand):
            yield error(path, problem)
    elif name == "$exists":
        if not isinstance(operand, bool):
            yield warning(path, f"$exists takes true or false, not {operand!r}.")
    elif name in MEMBERSHIP:
        yield from _members(field, name, operand, path)
    elif name in ORDERINGS and operand is None:
        yield warning(path, f"{name} null orders nothing: use {{'$ne': None}} or $exists.")
    else:
        yield from check_value(field, name, operand, path)


def _members(field: str, name: str, operand: object, path: str) -> Iterator[Finding]:
    if not isinstance(operand, list | tuple):
        yield error(path, f"{name} takes a list, not {operand!r}.")
        return
    if not operand:
        runs = "no run" if name == "$in" else "every run"
        yield warning(path, f"{name} of nothing matches {runs}: leave it out where none is meant.")
    for index, one in enumerate(operand):
        yield from check_value(field, name, one, f"{path}[{index}]")


def _undocumented_not(path: str) -> Iterator[Finding]:
    yield warning(path, "$not is not among W&B's operators: use {'$nor': [...]}.")


def _unknown_operator(name: object) -> str:
    text = str(name)
    said = f"{name!r} is no operator of W&B, whose server answers it with HTTP 500, again and again"
    if remedy := _REMEDIES.get(text):
        return f"{said}: use {remedy}."
    if not text.startswith("$"):
        return f"{name!r} stands beside operators: a condition holds operators only, such as $gt."
    if close := get_close_matches(text, sorted(OPERATORS), n=1):
        return f"{said}: did you mean {close[0]!r}?"
    return f"{said}. It has {', '.join(sorted(COMPARISONS | LOGIC))}."
