"""What runs and sweeps have in common: a place in a project, and what the server says of them."""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar
from urllib.parse import quote

from wb_ops.client.history import HistoryReader
from wb_ops.client.source import Node, RunSource
from wb_ops.errors import MalformedResponse
from wb_ops.settings import project_url
from wb_ops.tables.runs import server_time


class ProjectItem:
    """One run or sweep, as the server gave it."""

    # What its pages are under in the project's page.
    _pages: ClassVar[str]

    def __init__(self, source: RunSource, reader: HistoryReader, node: Node) -> None:
        self._source = source
        self._reader = reader
        self._node = node

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {'/'.join(self.path)} ({self.state})>"

    @property
    def id(self) -> str:
        """The id in its URL, unique in its project."""
        return str(self._node["name"])

    @property
    def entity(self) -> str:
        """The team or user that owns the project."""
        return self._source.entity

    @property
    def project(self) -> str:
        """The project's name."""
        return self._source.project

    @property
    def path(self) -> list[str]:
        """[entity, project, id]."""
        return [self.entity, self.project, self.id]

    @property
    def url(self) -> str:
        """Its page on the server that it was read from."""
        base_url = self._source.transport.settings.base_url
        page = project_url(base_url, self.entity, self.project)
        return f"{page}/{self._pages}/{quote(self.id, safe='')}"

    @property
    def state(self) -> str:
        """Its state in the server's word; "unknown" where the server does not say."""
        return str(self._node.get("state") or "unknown")

    @property
    def created_at(self) -> datetime | None:
        """When it was made, UTC, by the server's clock."""
        return self._time("createdAt")

    def _time(self, field: str) -> datetime | None:
        return read_time(self._node, field, "/".join(self.path))


def read_time(node: dict[str, Any], field: str, path: str) -> datetime | None:
    """Read a time that the server gives of what is at `path`.

    Raises:
        MalformedResponse: it is no time (retry: backoff).
    """
    try:
        return server_time(node, field)
    except ValueError as exc:
        raise MalformedResponse(f"{field} of {path} is no time: {exc}", exc, path=path) from exc
