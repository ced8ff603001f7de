"""One project as a source of runs: pages of runs, runs by id, one run."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

from wb_ops.client.filters import all_of, check, require_valid
from wb_ops.client.listing import Listing, OnBroken
from wb_ops.client.operations import FILTER_PROBE, RUN, Operation
from wb_ops.client.paging import MAX_PAGE_SIZE, iter_pages
from wb_ops.client.responses import missing
from wb_ops.client.retries import GivesUp
from wb_ops.client.transport import Transport
from wb_ops.errors import CommError, InvalidRequest, ServerUnavailable
from wb_ops.tables.times import filter_time

log = logging.getLogger("wb_ops")

IDS_PER_REQUEST = 200
# How often a listing is read while runs are deleted or move under it.
LISTING_PASSES = 3

Node = dict[str, Any]


@dataclass(frozen=True, slots=True)
class RunSource:
    """A W&B project, and the transport through which its runs are read."""

    transport: Transport
    entity: str
    project: str

    @property
    def path(self) -> str:
        """entity/project."""
        return f"{self.entity}/{self.project}"

    def iter_nodes(
        self,
        filters: Mapping[str, Any] | None = None,
        order: str = "+created_at",
        page_size: int = MAX_PAGE_SIZE,
        on_count: Callable[[int], None] | None = None,
        on_broken: OnBroken | None = None,
        largest_page: int | None = None,
    ) -> Iterator[Node]:
        """Yield the runs that match, lazily, each id once; one request a page.

        A page that the server cannot produce is halved until the run that breaks it is found;
        that run is logged, told to `on_broken` and left out. Pages grow from `page_size` to
        `largest_page` runs while answers are quick. `on_count` is told the server's count of
        matching runs with every page. Where the count falls meanwhile, or a page does not go on
        where the one before ended, the listing is read again for the runs that moved (twice at
        most).

        Raises:
            InvalidRequest: the filters would fail or silently match nothing (retry: never).
            NotFound: there is no such project, or this key cannot see it (retry: never).
            CommError: by the table in `errors`; also where not one run can be read.
        """
        return self._iter_listed(
            filters, order, on_broken, page_size, largest_page, on_count, needs_some=True
        )

    def fetch_nodes(
        self,
        run_ids: Sequence[str],
        filters: Mapping[str, Any] | None = None,
        on_broken: OnBroken | None = None,
    ) -> dict[str, Node]:
        """Return the newest state of some runs by id; what does not exist or match is left out.

        One request for up to 200 runs. A run that the server cannot give is told to `on_broken`
        and left out too; without it, it is an error: a failing server must not pass for a
        deletion. See `iter_nodes`.

        Raises:
            CommError: by the table in `errors`; without `on_broken` also for a single run.
        """
        nodes: dict[str, Node] = {}
        for at in range(0, len(run_ids), IDS_PER_REQUEST):
            some = list(run_ids[at : at + IDS_PER_REQUEST])
            wanted = all_of(filters or {}, {"name": {"$in": some}})
            listed = self._iter_listed(wanted, "+created_at", on_broken or _raise, len(some))
            nodes |= {node["name"]: node for node in listed}
        return nodes

    def fetch_node(self, run_id: str) -> Node:
        """Return one run; one request.

        Raises:
            NotFound: no such project or run (retry: never).
        """
        return self.fetch_run_fields(self.operation("Run", RUN, name=run_id))

    def filters_on_time(self, name: str) -> bool:
        """Whether the server filters on a field of times that is not documented; one request.

        A server that does not know a field may match every run or none, or answer with HTTP 400
        or 500 (the hosted service did so to other filters that it does not understand,
        opentensor/validators#136): all of it is a no.

        Raises:
            NotFound: there is no such project, or this key cannot see it (retry: never).
            CommError: by the table in `errors`.
        """
        years = {"any": 1970, "none": 9999}
        times = {key: filter_time(datetime(year, 1, 1, tzinfo=UTC)) for key, year in years.items()}
        filters = {key: _filter_text({name: {"$gte": time}}) for key, time in times.items()}
        try:
            found = self.fetch_project_fields(
                self.operation("FilterProbe", FILTER_PROBE, **filters), _is_not_understood
            )
        except CommError as error:
            if not _is_not_understood(error):
                raise
            log.info("%s: the server does not filter on %s: %s", self.path, name, error)
            return False
        return bool(found.get("any")) and found.get("none") == 0

    def operation(self, name: str, document: str, /, **variables: object) -> Operation:
        """An operation on this project."""
        scope = {"entity": self.entity, "project": self.project}
        return Operation(name, document, {**scope, **variables})

    def fetch_project_fields(
        self, operation: Operation, gives_up: GivesUp | None = None
    ) -> dict[str, Any]:
        """Run an operation that selects fields of this project and return them.

        Raises:
            NotFound: there is no such project, or this key cannot see it (retry: never).
        """
        data = self.transport.execute(operation, self.path, gives_up)
        project = data.get("project")
        if project is None:
            raise missing("project", {"operation": operation.name, "path": self.path})
        return dict(project)

    def fetch_run_fields(
        self, operation: Operation, gives_up: GivesUp | None = None
    ) -> dict[str, Any]:
        """Run an operation that selects fields of one run (variable `name`) and return them."""
        path = f"{self.path}/{operation.variables.get('name')}"
        run = self.fetch_project_fields(operation, gives_up).get("run")
        if run is None:
            raise missing("run", {"operation": operation.name, "path": path})
        return dict(run)

    def _iter_listed(
        self,
        filters: Mapping[str, Any] | None,
        order: str,
        on_broken: OnBroken | None,
        page_size: int,
        largest_page: int | None = None,
        on_count: Callable[[int], None] | None = None,
        *,
        needs_some: bool = False,
    ) -> Iterator[Node]:
        """Each run once, read again where some were deleted or moved meanwhile."""
        _check(filters or {})
        seen: set[str] = set()
        for number in range(LISTING_PASSES):
            if number:
                # Cursors count positions: a run that goes moves another to a page already read.
                log.info(
                    "%s: runs were deleted or moved during the listing; reading again", self.path
                )
            listing = self._listing(filters, order, on_broken, seen)
            counts = listing.counts
            pages = iter_pages(listing.fetch, page_size, largest=largest_page, skip=listing.skip)
            for page in pages:
                if on_count is not None and counts:
                    on_count(counts[-1])
                yield from _unseen(page.nodes, seen)
            if needs_some:
                listing.require_some()
            has_fallen = any(later < earlier for earlier, later in pairwise(counts))
            if not (has_fallen or listing.has_moved):
                return
        log.warning(
            "%s: runs are deleted or move faster than they are listed; some may be missing",
            self.path,
        )

    def _listing(
        self,
        filters: Mapping[str, Any] | None,
        order: str,
        on_broken: OnBroken | None,
        seen: set[str],
    ) -> Listing:
        asked = {"filters": _filter_text(filters), "order": order}
        fetch = self.fetch_project_fields
        return Listing(self.path, self.operation, fetch, asked, on_broken, seen)


def _unseen(nodes: Iterable[Node], seen: set[str]) -> Iterator[Node]:
    """Each run once: one that moved while it was listed may come twice."""
    for node in nodes:
        if node["name"] not in seen:
            seen.add(node["name"])
            yield node


def _is_not_understood(error: CommError, attempts: int = 1) -> bool:
    is_its_fault = isinstance(error, ServerUnavailable) and error.http_status == 500
    return is_its_fault or isinstance(error, InvalidRequest)


def _raise(run_id: str, error: CommError) -> None:
    raise error


def _check(filters: Mapping[str, Any]) -> None:
    require_valid(filters)
    for finding in check(filters):
        log.warning("%s", finding)


def _filter_text(filters: Mapping[str, Any] | None) -> str:
    try:
        return json.dumps(filters or {}, allow_nan=False)
    except (TypeError, ValueError) as exc:
        raise InvalidRequest(
            f"filters cannot be sent as JSON ({exc}): give dates as ISO strings such as "
            "'2026-01-31T00:00:00Z', and numbers, texts and lists otherwise."
        ) from exc
