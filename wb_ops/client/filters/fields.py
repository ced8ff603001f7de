"""Finds mistakes in the name of a field and in what it is compared with."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches

from wb_ops.client.filters.findings import Finding, error, warning
from wb_ops.client.filters.names import (
    CONFIG,
    FIELDS,
    MAX_DOTS,
    ORDERINGS,
    SNAKE_CASE,
    STATES,
    SUMMARY,
    TEXT_FIELDS,
    TIME_FIELDS,
    canonical,
)
from wb_ops.client.filters.values import scalar_problem, time_problem

_MEANT = {
    "created": "createdAt",
    "heartbeat": "heartbeatAt",
    "run_id": "name",
    "run_name": "displayName",
    "runId": "name",
    "runtime": "duration",
    "status": "state",
    "sweepName": "sweep",
    "sweep_id": "sweep",
    "sweep_name": "sweep",
    "user": "username",
    "user.username": "username",
}
_SCOPE = {"entity", "project"}
# What W&B calls a run that was given no name, such as eager-fox-1.
_GENERATED_NAME = re.compile(r"[a-z]+-[a-z]+-\d+")


def check_field(name: str, path: str) -> Iterator[Finding]:
    """Find what is wrong with the name of a field."""
    root, _, rest = name.partition(".")
    if root in ("summary", "summaryMetrics"):
        meant = f"{SUMMARY}.{rest or 'loss'}"
        yield error(path, f"{root!r} is no field of W&B's filters: write {meant!r}.")
    elif name == "id":
        yield error(
            path, "'id' never matches: the run id of a run's URL is called 'name' in filters."
        )
    elif root in MAX_DOTS:
        yield from _check_document_path(root, rest, path)
    elif canonical(name) is None:
        yield warning(
            path, f"W&B documents no field {name!r}, so no run may match: {_remedy(name)}"
        )


def check_value(field: str, operator: str, value: object, path: str) -> Iterator[Finding]:
    """Find what is wrong with one value that a field is compared with by an operator."""
    name = canonical(field)
    if name in TIME_FIELDS and value is not None:
        if problem := time_problem(value):
            yield error(path, problem)
        return
    problems = list(_check_json(value, path))
    yield from problems
    if not problems and name is not None and value is not None:
        yield from _check_run_value(name, operator, value, path)


def _check_document_path(root: str, rest: str, path: str) -> Iterator[Finding]:
    keys = rest.split(".")
    if not all(keys):
        example = f"{root}.{'lr' if root == CONFIG else 'loss'}"
        yield error(path, f"names no key of {root}: write {example!r}.")
        return
    if rest.count(".") > MAX_DOTS[root]:
        yield warning(
            path,
            f"W&B documents at most {MAX_DOTS[root]} dots in a key of {root}: "
            "leave this out, and test the runs that come with filters.matches().",
        )
    elif len(keys) > 1 and not (root == CONFIG and keys[1] == "value"):
        yield warning(path, _ambiguity(root, keys))


def _ambiguity(root: str, keys: list[str]) -> str:
    nested = f"{root}.{keys[0]}.value.{'.'.join(keys[1:])}"
    stored = f" For the member write {nested!r}." if root == CONFIG else ""
    return (
        f"can mean the member {'.'.join(keys[1:])!r} of {keys[0]!r} or one key "
        f"{'.'.join(keys)!r}, which the server does not find.{stored} For the one key leave this "
        "out, and test the runs that come with filters.matches()."
    )


def _remedy(name: str) -> str:
    if name in _SCOPE:
        return "give it in the path, entity/project."
    known = sorted({*FIELDS, *SNAKE_CASE})
    if meant := _MEANT.get(name) or next(iter(get_close_matches(name, known, n=1)), None):
        return f"did you mean {meant!r}?"
    return f"write 'config.{name}' or '{SUMMARY}.{name}' for what was logged."


def _check_json(value: object, path: str) -> Iterator[Finding]:
    if isinstance(value, Mapping):
        for name, member in value.items():
            if not isinstance(name, str):
                yield error(path, f"the key {name!r} is not text, as JSON needs.")
            yield from _check_json(member, f"{path}[{name!r}]")
    elif isinstance(value, list | tuple):
        for index, member in enumerate(value):
            yield from _check_json(member, f"{path}[{index}]")
    elif problem := scalar_problem(value):
        yield error(path, problem)


def _check_run_value(name: str, operator: str, value: object, path: str) -> Iterator[Finding]:
    if isinstance(value, list | tuple):
        yield error(path, _list_problem(name))
    elif name in TEXT_FIELDS | {"tags"} and not isinstance(value, str):
        yield warning(path, f"{name} is text and is never equal to {value!r}.")
    elif name == "duration" and (isinstance(value, bool) or not isinstance(value, int | float)):
        yield warning(path, f"duration is a number of seconds and is never equal to {value!r}.")
    elif name == "state" and operator not in ORDERINGS and value not in STATES:
        yield warning(path, _unknown_state(str(value)))
    elif name == "name" and _looks_like_display_name(str(value)):
        yield warning(
            path,
            f"{value!r} looks like a display name, and 'name' is the run id: "
            "write 'displayName' if the name of the run is meant.",
        )


def _list_problem(name: str) -> str:
    if name == "tags":
        return (
            "W&B answers a list of tags with HTTP 500: {'tags': {'$in': [...]}} for any of them, "
            "one {'tags': tag} for each, joined by $and, for all."
        )
    return f"{name} is never a list: use {{'$in': [...]}}."


def _unknown_state(value: str) -> str:
    close = get_close_matches(value.lower(), sorted(STATES), n=1)
    meant = f"did you mean {close[0]!r}?" if close else f"it has {', '.join(sorted(STATES))}."
    return f"W&B has no state {value!r}: {meant}"


def _looks_like_display_name(value: str) -> bool:
    return " " in value.strip() or _GENERATED_NAME.fullmatch(value) is not None
