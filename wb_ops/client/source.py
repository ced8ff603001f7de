"""One project as a source of runs: pages of runs, runs by id, one run."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wb_ops.client.filters import check, require_valid
from wb_ops.client.operations import RUN, RUNS, Operation
from wb_ops.client.paging import MAX_PAGE_SIZE, iter_pages
from wb_ops.client.responses import missing
from wb_ops.client.transport import Transport
from wb_ops.errors import InvalidRequest

log = logging.getLogger("wb_ops")

IDS_PER_REQUEST = 200

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
    ) -> Iterator[Node]:
        """Yield the runs that match, lazily, each id once; one request a page.

        `on_count` is told the server's count of matching runs with every page.

        Raises:
            InvalidRequest: the filters would fail or silently match nothing (retry: never).
            NotFound: there is no such project, or this key cannot see it (retry: never).
        """
        _check(filters or {})
        fetch = self._page_fetcher(filters, order, on_count)
        seen: set[str] = set()
        for page in iter_pages(fetch, page_size):
            for node in page.nodes:
                if node["name"] not in seen:
                    seen.add(node["name"])
                    yield node

    def fetch_nodes(
        self, run_ids: Sequence[str], filters: Mapping[str, Any] | None = None
    ) -> dict[str, Node]:
        """Return the newest state of some runs by id; what does not exist or match is left out.

        One request for up to 200 runs.
        """
        nodes: dict[str, Node] = {}
        for at in range(0, len(run_ids), IDS_PER_REQUEST):
            some = list(run_ids[at : at + IDS_PER_REQUEST])
            named: dict[str, Any] = {"name": {"$in": some}}
            wanted = {"$and": [dict(filters), named]} if filters else named
            for node in self.iter_nodes(wanted, page_size=len(some)):
                nodes[node["name"]] = node
        return nodes

    def fetch_node(self, run_id: str) -> Node:
        """Return one run; one request.

        Raises:
            NotFound: no such project or run (retry: never).
        """
        return self.fetch_run_fields(self.operation("Run", RUN, name=run_id))

    def operation(self, name: str, document: str, /, **variables: object) -> Operation:
        """An operation on this project."""
        scope = {"entity": self.entity, "project": self.project}
        return Operation(name, document, {**scope, **variables})

    def fetch_project_fields(self, operation: Operation) -> dict[str, Any]:
        """Run an operation that selects fields of this project and return them.

        Raises:
            NotFound: there is no such project, or this key cannot see it (retry: never).
        """
        data = self.transport.execute(operation, self.path)
        project = data.get("project")
        if project is None:
            raise missing("project", {"operation": operation.name, "path": self.path})
        return dict(project)

    def fetch_run_fields(self, operation: Operation) -> dict[str, Any]:
        """Run an operation that selects fields of one run (variable `name`) and return them."""
        path = f"{self.path}/{operation.variables.get('name')}"
        run = self.fetch_project_fields(operation).get("run")
        if run is None:
            raise missing("run", {"operation": operation.name, "path": path})
        return dict(run)

    def _page_fetcher(
        self,
        filters: Mapping[str, Any] | None,
        order: str,
        on_count: Callable[[int], None] | None,
    ) -> Callable[[str | None, int], dict[str, Any]]:
        text = _filter_text(filters)

        def fetch(cursor: str | None, size: int) -> dict[str, Any]:
            project = self.fetch_project_fields(
                self.operation("Runs", RUNS, filters=text, order=order, cursor=cursor, perPage=size)
            )
            if on_count is not None:
                on_count(int(project.get("runCount") or 0))
            return project.get("runs") or {}

        return fetch


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
