"""Listings of runs: filter, order, pages with opaque cursors."""

from __future__ import annotations

import base64
import binascii
import json
import secrets
import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from wb_ops.devserver.filters import COLUMNS, FilterRefusedError, compile_filter
from wb_ops.devserver.jsontext import Json, parse_object
from wb_ops.devserver.ordering import DEFAULT_ORDER, parse_order, sort_key
from wb_ops.devserver.store import Store
from wb_ops.devserver.wire_time import seconds_between

MAX_PAGE = 1000
_REMEMBERED = 64
Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a listing: the keys of its runs, a cursor for each, and what follows."""

    pks: Sequence[int]
    cursors: Sequence[str]
    end_cursor: str | None
    has_next_page: bool
    total: int


class Listing:
    """Answers filtered and ordered listings; one is remembered while its project is unchanged.

    Cursors count positions, as W&B's do: a set that changes between two pages gives doubles and
    gaps, which clients have to cope with.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: OrderedDict[tuple[int, int, str, str], list[int]] = OrderedDict()
        self._lock = threading.Lock()

    def list_pks(self, project: sqlite3.Row, filters: str | None, order: str | None) -> list[int]:
        """The keys of all runs that match, in order; ties keep the order of insertion."""
        version = self._project_version(project["pk"])
        key = (project["pk"], version, filters or "{}", order or DEFAULT_ORDER)
        with self._lock:
            known = self._known.get(key)
        if known is None:
            known = self._compute(key[0], key[2], key[3])
            with self._lock:
                self._known[key] = known
                while len(self._known) > _REMEMBERED:
                    self._known.popitem(last=False)
        return known

    def page(
        self,
        project: sqlite3.Row,
        filters: str | None,
        order: str | None,
        first: int | None,
        after: str | None,
    ) -> Page:
        """One page; ``first`` is 50 by default and at most 1,000."""
        pks = self.list_pks(project, filters, order)
        start = 0 if after is None else decode_cursor(after)
        stop = start + min(50 if first is None else max(first, 0), MAX_PAGE)
        chosen = pks[start:stop]
        cursors = [encode_cursor(start + index + 1) for index in range(len(chosen))]
        end = cursors[-1] if cursors else None
        return Page(chosen, cursors, end, stop < len(pks), len(pks))

    def _project_version(self, pk: int) -> int:
        row = self._store.database.read_one("select version from project where pk = ?", (pk,))
        return int(row["version"]) if row else -1

    def _compute(self, project_pk: int, filters: str, order: str) -> list[int]:
        matches = compile_filter(_parse_filters(filters))
        path, descending = parse_order(order)
        mentioned = filters + path
        wanted = ["pk", *sorted(set(COLUMNS.values()) - {"duration"})]
        wanted += [name for name in ("config", "summary") if name in mentioned]
        rows = self._store.database.read(
            f"select {', '.join(wanted)} from run where project_pk = ? order by pk", (project_pk,)
        )
        runs = [run for run in map(_RunFields, rows) if matches(run)]
        runs.sort(key=sort_key(path), reverse=descending)
        return [run.pk for run in runs]


def connection(
    rows: Sequence[Row],
    to_node: Callable[[Row], dict[str, object]],
    first: int | None,
    after: str | None,
) -> dict[str, object]:
    """One page of ``rows`` as a Relay connection; ``first`` is 50 by default."""
    start = 0 if after is None else decode_cursor(after)
    stop = start + (50 if first is None else first)
    edges = [
        {"node": to_node(row), "cursor": encode_cursor(start + index)}
        for index, row in enumerate(rows[start:stop], 1)
    ]
    end = edges[-1]["cursor"] if edges else None
    return {"edges": edges, "pageInfo": {"endCursor": end, "hasNextPage": stop < len(rows)}}


def _parse_filters(filters: str) -> Json:
    try:
        query: Json = json.loads(filters)
    except ValueError as error:
        raise FilterRefusedError("filters must be a JSON string") from error
    return {} if query is None else query


def encode_cursor(position: int, salt: str = "") -> str:
    """An opaque cursor; a salt makes a second cursor for the same position."""
    return base64.urlsafe_b64encode(f"run:{position}:{salt}".encode()).decode()


def fresh_cursor(after: str | None) -> str:
    """Another cursor for the position that ``after`` stands for."""
    return encode_cursor(0 if after is None else decode_cursor(after), secrets.token_hex(4))


def decode_cursor(cursor: str) -> int:
    """The position behind a cursor.

    Raises:
        FilterRefusedError: it is none of ours.
    """
    try:
        kind, position, _ = base64.urlsafe_b64decode(cursor).decode().split(":")
        if kind != "run":
            raise ValueError(kind)
        return int(position)
    except (binascii.Error, ValueError) as error:
        raise FilterRefusedError(f"invalid cursor {cursor!r}") from error


class _RunFields:
    """A run as filters and orders see it; config and summary are parsed at first use."""

    __slots__ = ("_config", "_row", "_summary", "pk")

    def __init__(self, row: sqlite3.Row) -> None:
        self.pk = int(row["pk"])
        self._row = row
        self._config: dict[str, Json] | None = None
        self._summary: dict[str, Json] | None = None

    def value(self, path: str) -> Json:
        head, _, rest = path.partition(".")
        if head == "config" and rest:
            if self._config is None:
                self._config = parse_object(self._row["config"])
            return _config_value(self._config, rest)
        if head == "summary_metrics" and rest:
            if self._summary is None:
                self._summary = parse_object(self._row["summary"])
            return _walk(self._summary, rest.split("."))
        return self._column(COLUMNS.get(path))

    def _column(self, column: str | None) -> Json:
        if column is None:
            return None
        if column == "duration":
            return seconds_between(self._row["created_at"], self._row["heartbeat_at"])
        if column == "tags":
            tags: Json = json.loads(self._row["tags"])
            return tags
        value: Json = self._row[column]
        return value


def _config_value(config: dict[str, Json], path: str) -> Json:
    """``config.k`` and ``config.k.value`` are the same place, below which nested keys follow."""
    key, *rest = path.split(".")
    entry = config.get(key)
    if isinstance(entry, dict) and "value" in entry:
        entry = entry["value"]
        rest = rest[1:] if rest[:1] == ["value"] else rest
    return _walk(entry, rest)


def _walk(node: Json, path: list[str]) -> Json:
    for key in path:
        node = node.get(key) if isinstance(node, dict) else None
    return node
