"""One listing of runs: its pages, and the runs in it that the server cannot give."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field
from typing import Any

from wb_ops.client.operations import RUN_NAMES, RUNS, Operation
from wb_ops.client.paging import MAX_PAGE_SIZE, Connection, prefers_smaller
from wb_ops.client.retries import GivesUp
from wb_ops.errors import CommError

# So many broken runs with none between them that can be read: it is the server, not a run.
MAX_BROKEN_IN_A_ROW = 5
# Orders in which no edit moves a run.
FIXED_ORDERS = frozenset({"created_at", "createdAt"})

log = logging.getLogger("wb_ops")

# Told the id of a run that the server cannot list, and why.
OnBroken = Callable[[str, CommError], None]


@dataclass(frozen=True, slots=True)
class _End:
    """The last run of a page, the cursor after it, and the one before it."""

    cursor: str | None
    before: str | None
    name: str


@dataclass(slots=True)
class Listing:
    """Fetches the pages of one query for runs; finds and skips the runs that break them.

    Attributes:
        path: entity/project.
        operation: as `RunSource.operation`.
        fetch_project: as `RunSource.fetch_project_fields`.
        asked: the variables `filters` and `order`.
        counts: the server's count of matching runs, of each page.
        on_broken: told each run that is skipped.
        listed: ids of the runs that an earlier reading gave: they are not left out.
        has_moved: a page did not begin where the one before ended: runs may have been passed over.
    """

    path: str
    operation: Callable[..., Operation]
    fetch_project: Callable[[Operation, GivesUp | None], dict[str, Any]]
    asked: Mapping[str, str]
    on_broken: OnBroken | None = None
    listed: Set[str] = frozenset()
    counts: list[int] = field(default_factory=list)
    has_read: bool = False
    has_moved: bool = False
    broken: dict[str, CommError] = field(default_factory=dict)
    _broken_in_a_row: int = 0
    _given: set[str] = field(default_factory=set)
    _end: _End | None = None

    def fetch(self, cursor: str | None, size: int) -> Connection:
        """Fetch a page of `size` runs, after the last one of the page before where that is known.

        A page of one run is to tell whether this one can be read, so it holds no other.
        """
        end = self._end if size > 1 and self._end and self._end.cursor == cursor else None
        if end is None:
            return self._ask(cursor, size)
        connection = self._ask(end.before, min(size + 1, MAX_PAGE_SIZE), end)
        has_next = (connection.get("pageInfo") or {}).get("hasNextPage")
        if has_next and [edge["node"]["name"] for edge in _edges(connection)] == [end.name]:
            # The server cuts pages shorter than that: the next run comes alone.
            return self._ask(cursor, size)
        return connection

    def _ask(self, after: str | None, size: int, end: _End | None = None) -> Connection:
        operation = self.operation("Runs", RUNS, **self.asked, cursor=after, perPage=size)
        project = self.fetch_project(operation, prefers_smaller if size > 1 else None)
        self.counts.append(int(project.get("runCount") or 0))
        connection: Connection = project.get("runs") or {}
        if connection.get("edges"):
            self.has_read, self._broken_in_a_row = True, 0
        self._take(connection, after, size, end)
        return connection

    def skip(self, cursor: str | None, error: CommError) -> Connection:
        """Find out which run comes after the cursor, report it, and give the place after it."""
        self._broken_in_a_row += 1
        self._end = None
        if self._broken_in_a_row > MAX_BROKEN_IN_A_ROW:
            raise error
        operation = self.operation("RunNames", RUN_NAMES, **self.asked, cursor=cursor, perPage=1)
        connection: Connection = self.fetch_project(operation, None).get("runs") or {}
        edges = connection.get("edges") or []
        for run_id in (edge["node"]["name"] for edge in edges):
            if run_id not in self.listed:
                self._report(run_id, error)
        return {**connection, "edges": [{"cursor": edge.get("cursor")} for edge in edges]}

    def require_some(self) -> None:
        """Raise if not one run could be read: a failing server must not pass for an empty list."""
        if self.broken and not self.has_read:
            raise next(iter(self.broken.values()))

    def _take(self, connection: Connection, after: str | None, size: int, end: _End | None) -> None:
        """Cursors may count positions: one run that goes and one that comes leave the count."""
        edges = _edges(connection)
        names = [edge["node"]["name"] for edge in edges]
        if end is not None and names:
            self.has_moved |= names[0] not in self._known_before(end)
        self._given.update(names)
        self._end = None
        if len(edges) > 1 or (edges and size == 1):
            before = edges[-2].get("cursor") if len(edges) > 1 else after
            self._end = _End(edges[-1].get("cursor"), before, names[-1])

    def _known_before(self, end: _End) -> Set[str]:
        """What a page may begin with that follows this end and passes over nothing.

        A run that is new in front moves all others on. So does one that an edit moves there, but
        then it may be one that was not read yet.
        """
        return self._given if self.asked["order"].lstrip("+-") in FIXED_ORDERS else {end.name}

    def _report(self, run_id: str, error: CommError) -> None:
        log.warning("%s/%s cannot be listed and is left out: %s", self.path, run_id, error)
        self.broken[run_id] = error
        if self.on_broken is not None:
            self.on_broken(run_id, error)


def _edges(connection: Connection) -> list[dict[str, Any]]:
    return [edge for edge in connection.get("edges") or [] if edge and edge.get("node")]
