"""Operator arguments after rendering: templates can make text of anything."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from wb_ops.errors import InvalidRequest

if TYPE_CHECKING:
    from wb_ops.export import Shard


def parse_moment(name: str, value: datetime | str | None) -> datetime | None:
    """Return a datetime from ISO text; None and empty text are "not given".

    Raises:
        InvalidRequest: it is not ISO text (retry: never).
    """
    if value is None or isinstance(value, datetime):
        return value
    if not value.strip():
        return None
    try:
        return datetime.fromisoformat(value.strip())
    except ValueError as exc:
        raise InvalidRequest(
            f"{name}={value!r} is no ISO time such as 2026-01-31T00:00:00+00:00. In runs without "
            "a date, template with a default: {{ data_interval_start | default('', true) }}."
        ) from exc


def parse_flag(name: str, value: bool | str) -> bool:
    """Return a bool from itself or from the text that a template makes of it.

    Raises:
        InvalidRequest: it is neither true nor false (retry: never).
    """
    text = str(value).strip().lower()
    if text not in ("true", "false"):
        raise InvalidRequest(f"{name}={value!r}: give true or false.")
    return text == "true"


def parse_count(name: str, value: int | str | None, least: int) -> int | None:
    """Return a whole number from itself or its text; None and empty text are "not given".

    Raises:
        InvalidRequest: it is no whole number, or less than `least` (retry: never).
    """
    text = "" if value is None else str(value).strip()
    if not text:
        return None
    if not text.isdecimal() or int(text) < least:
        raise InvalidRequest(f"{name}={value!r}: give a whole number, {least} or more.")
    return int(text)


def parse_filters(value: Mapping[str, Any] | str | None) -> dict[str, Any]:
    """Return the filters from a dict or its JSON text; empty where none are given.

    Raises:
        InvalidRequest: it is not JSON, or not an object (retry: never).
    """
    document = _parse_json("filters", value)
    if document is None:
        return {}
    if not isinstance(document, Mapping):
        raise InvalidRequest(f"filters={value!r}: give a dict, or JSON text of one.")
    return dict(document)


def parse_names(name: str, value: Sequence[str] | str | None) -> tuple[str, ...] | None:
    """Return names from a list or its JSON text; None where none are given.

    Raises:
        InvalidRequest: it is not JSON, or not a list of names (retry: never).
    """
    document = _parse_json(name, value)
    if document is None:
        return None
    if not isinstance(document, list | tuple) or not all(isinstance(one, str) for one in document):
        raise InvalidRequest(f"{name}={value!r}: give a list of names, or JSON text of one.")
    return tuple(document)


def parse_shard(value: Mapping[str, Any] | str) -> tuple[str, Shard]:
    """Return the plan and the part of it that an element of a planning task's list means.

    Raises:
        InvalidRequest: it is no such element (retry: never).
    """
    from wb_ops.export import Shard

    # Whatever has not these members fails in the next lines, and is told apart there.
    document: Any = _parse_json("shard", value)
    try:
        plan_uri, index, count = (document[name] for name in ("plan_uri", "shard", "shards"))
        return str(plan_uri), Shard(int(index), int(count))
    except (KeyError, TypeError, ValueError) as exc:
        raise InvalidRequest(
            f"shard={value!r}: give an element of what a WandbPlanExportOperator returns, with "
            ".expand(shard=plan.output)."
        ) from exc


def _parse_json(name: str, value: object) -> object:
    if not isinstance(value, str):
        return value
    if not value.strip():
        return None
    try:
        document: object = json.loads(value)
    except ValueError as exc:
        raise InvalidRequest(
            f"{name}={value!r} is not JSON; in a template, use the filter tojson."
        ) from exc
    return document
