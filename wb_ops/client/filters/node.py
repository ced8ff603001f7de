"""A run as filters see it: field names lead to values, or to MISSING."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from enum import Enum
from functools import cached_property
from typing import Any, Final, TypedDict, Unpack

from wb_ops.client.filters.names import CONFIG, SUMMARY, canonical
from wb_ops.client.filters.values import parse_time, time_text
from wb_ops.errors import InvalidRequest, MalformedResponse
from wb_ops.tables.values import parse_json


class Missing(Enum):
    """The type of MISSING."""

    MISSING = "not there"


MISSING: Final = Missing.MISSING

# A field of a filter -> the member of a run as the server sends it, where the names differ.
_MEMBERS = {"sweep": "sweepName", "username": "user"}
# A field of a filter -> the argument of run_node, where the names differ.
_ARGUMENTS = {
    "name": "run_id",
    "displayName": "display_name",
    "jobType": "job_type",
    "createdAt": "created_at",
    "heartbeatAt": "heartbeat_at",
    "updatedAt": "updated_at",
}


class RunValues(TypedDict, total=False):
    """What is known of a run, under the names of this package's fields."""

    run_id: str
    display_name: str | None
    state: str
    group: str | None
    job_type: str | None
    sweep: str | None
    username: str | None
    host: str | None
    tags: list[str]
    created_at: datetime | str
    heartbeat_at: datetime | str | None
    updated_at: datetime | str | None
    config: Mapping[str, object]
    summary: Mapping[str, object]


def run_node(**fields: Unpack[RunValues]) -> dict[str, object]:
    """Return a run for `matches` from plain values, for tests and for runs read elsewhere.

    What is not given is unknown, which is not null: a filter on it is refused.

    Raises:
        InvalidRequest: a time without zone, or no ISO 8601 text (retry: never).
    """
    node: dict[str, object] = {}
    given: dict[str, Any] = {**fields}
    for member, argument in _ARGUMENTS.items():
        if argument in given:
            value = given[argument]
            is_time = member.endswith("At") and value is not None
            node[member] = time_text(value, argument) if is_time else value
    for name in ("state", "group", "host", "tags"):
        if name in given:
            node[name] = given[name]
    if "sweep" in fields:
        node["sweepName"] = fields["sweep"]
    if "username" in fields:
        node["user"] = {"username": fields["username"]}
    if "config" in fields:
        node["config"] = json.dumps({k: {"value": v} for k, v in fields["config"].items()})
    if "summary" in fields:
        node["summaryMetrics"] = json.dumps(fields["summary"])
    return node


class RunView:
    """Looks fields up in a run as the server sends it; config and summary are parsed once."""

    def __init__(self, node: Mapping[str, Any]) -> None:
        self._node = node

    def value(self, field: str) -> object:
        """Return what a field of a filter holds, MISSING where it is not there or is null.

        Only inside config and summary is null a value of its own. Times are datetimes.

        Raises:
            InvalidRequest: the run was read without that field (retry: never).
            MalformedResponse: config or summary is no JSON object (retry: backoff).
        """
        root, _, rest = field.partition(".")
        if root == CONFIG and rest:
            return _config_value(self._config, rest.split("."))
        if root == SUMMARY and rest:
            return _find(self._summary, rest.split("."))
        name = canonical(field)
        value = self._run_field(name) if name else None
        return MISSING if value is None else value

    @cached_property
    def _config(self) -> dict[str, object]:
        return _document(self._member("config"), "config")

    @cached_property
    def _summary(self) -> dict[str, object]:
        return _document(self._member("summaryMetrics"), "summary")

    def _run_field(self, name: str) -> object:
        if name == "duration":
            return self._duration()
        value = self._member(_MEMBERS.get(name, name))
        if name == "username":
            return value.get("username") if isinstance(value, Mapping) else None
        # Source: W&B's own condition for "not tagged" asks for tags of null.
        return (value or None) if name == "tags" else value

    def _duration(self) -> float | None:
        start, end = self._member("createdAt"), self._member("heartbeatAt")
        if start is None or end is None:
            return None
        return (parse_time(str(end)) - parse_time(str(start))).total_seconds()

    def _member(self, name: str) -> object:
        try:
            return self._node[name]
        except KeyError:
            raise InvalidRequest(
                f"The run was read without {name!r}, which the filter needs: read that field "
                "too, give it to run_node(), or let the server filter."
            ) from None


def _document(text: object, what: str) -> dict[str, object]:
    if text is None or text == "":
        return {}
    try:
        document = parse_json(text) if isinstance(text, str) else None
    except ValueError as error:
        raise MalformedResponse(f"The run's {what} is not JSON: {error}.", error) from error
    if not isinstance(document, dict):
        raise MalformedResponse(f"The run's {what} is not the JSON text of an object.")
    return document


def _config_value(document: dict[str, object], path: list[str]) -> object:
    """Walk a stored config, where each value is wrapped once; the path may name the wrapper."""
    for key, rest in _readings(document, path):
        entry = document[key]
        if isinstance(entry, dict) and "value" in entry:
            entry = entry["value"]
            rest = rest[1:] if rest[:1] == ["value"] else rest
        if (found := _find(entry, rest)) is not MISSING:
            return found
    return MISSING


def _find(value: object, path: list[str]) -> object:
    if not path:
        return value
    for key, rest in _readings(value, path):
        if isinstance(value, dict) and (found := _find(value[key], rest)) is not MISSING:
            return found
    return MISSING


def _readings(value: object, path: list[str]) -> list[tuple[str, list[str]]]:
    """Every way to split a path into a key of this object and the rest, longest key first."""
    if not isinstance(value, dict):
        return []
    splits = ((".".join(path[:n]), path[n:]) for n in range(len(path), 0, -1))
    return [(key, rest) for key, rest in splits if key in value]
