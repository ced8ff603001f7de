"""Projects of an entity, and what a project holds beside its runs."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from functools import cached_property
from typing import Any

from wb_ops.client.history import HistoryReader
from wb_ops.client.items import read_time
from wb_ops.client.lists import LazyList
from wb_ops.client.operations import PROJECT, PROJECTS, Operation
from wb_ops.client.paging import iter_pages
from wb_ops.client.runs import Runs
from wb_ops.client.source import Node, RunSource
from wb_ops.client.sweeps import Sweep, iter_sweeps
from wb_ops.client.transport import Transport
from wb_ops.client.users import User, user_of
from wb_ops.settings import project_url


class Project:
    """A W&B project. What is not known yet is asked for at first use, in one request."""

    def __init__(self, source: RunSource, reader: HistoryReader, node: Node | None = None) -> None:
        self._source = source
        self._reader = reader
        if node is not None:
            self._node = node

    def __repr__(self) -> str:
        return f"<Project {self._source.path}>"

    @cached_property
    def _node(self) -> Node:
        operation = self._source.operation("GetProject", PROJECT)
        return self._source.fetch_project_fields(operation)

    @property
    def name(self) -> str:
        """The project's name."""
        return self._source.project

    @property
    def entity(self) -> str:
        """The team or user that owns the project."""
        return self._source.entity

    @property
    def path(self) -> list[str]:
        """[entity, project]."""
        return [self.entity, self.name]

    @property
    def url(self) -> str:
        """The project's page on the server that it is read from."""
        base_url = self._source.transport.settings.base_url
        return f"{project_url(base_url, self.entity, self.name)}/workspace"

    @property
    def id(self) -> str:
        """The server's global id.

        Raises:
            NotFound: there is no such project, or this key cannot see it (retry: never).
        """
        return str(self._node["id"])

    @property
    def created_at(self) -> datetime | None:
        """When the project was made, UTC."""
        return read_time(self._node, "createdAt", self._source.path)

    @property
    def is_benchmark(self) -> bool:
        """Whether the project is one of W&B's benchmarks."""
        return bool(self._node.get("isBenchmark"))

    @property
    def owner(self) -> User | None:
        """Who made the project; None for an account that no longer exists."""
        return user_of(self._node.get("user"))

    def runs(self, **options: Any) -> Runs:
        """The project's runs; see `Api.runs` for the options."""
        return Runs(self._source, self._reader, **options)

    def sweeps(self, per_page: int = 50) -> LazyList[Sweep]:
        """The project's sweeps, lazily and list-like, `per_page` a request."""
        return LazyList(
            lambda: iter_sweeps(self._source, self._reader, per_page),
            f"Sweeps {self._source.path}",
        )


def list_projects(
    transport: Transport, reader: HistoryReader, entity: str, per_page: int
) -> LazyList[Project]:
    """The projects of an entity, lazily and list-like, `per_page` a request."""

    def fetch(cursor: str | None, size: int) -> dict[str, Any]:
        variables = {"entity": entity, "cursor": cursor, "perPage": size}
        answer = transport.execute(Operation("GetProjects", PROJECTS, variables), entity)
        return answer.get("models") or {}

    def read() -> Iterator[Project]:
        for page in iter_pages(fetch, per_page):
            for node in page.nodes:
                yield Project(RunSource(transport, entity, str(node["name"])), reader, node)

    return LazyList(read, f"Projects {entity}")
