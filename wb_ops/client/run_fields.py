"""What the server says of a run, under W&B's names: read-only, typed, as it was when read."""

from __future__ import annotations

import re
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from wb_ops.client.history import HistoryReader
from wb_ops.client.operations import SYSTEM_METRICS
from wb_ops.client.source import Node, RunSource
from wb_ops.client.users import User, user_of
from wb_ops.errors import MalformedResponse
from wb_ops.settings import project_url
from wb_ops.tables.runs import last_step, parse_server_time, unwrap_member
from wb_ops.tables.values import parse_json

if TYPE_CHECKING:
    from wb_ops.client.sweeps import Sweep


class RunFields:
    """The fields of one run.

    The server's own names (`run.displayName`, `run.createdAt`, ...) give their values as they
    came, as in W&B's SDK.
    """

    def __init__(self, source: RunSource, reader: HistoryReader, node: Node) -> None:
        self._source = source
        self._reader = reader
        self._node = node

    def __repr__(self) -> str:
        return f"<Run {'/'.join(self.path)} ({self.state})>"

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            node = self.__dict__.get("_node", {})
            for known in (name, _camel(name)):
                if known in node and not name.startswith("_"):
                    return node[known]
            raise AttributeError(f"Run has no attribute {name!r}")

    @property
    def id(self) -> str:
        """The run id, unique in its project."""
        return str(self._node["name"])

    @property
    def storage_id(self) -> str:
        """The server's global id, which writes address."""
        return str(self._node["id"])

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
        """[entity, project, run id]."""
        return [self.entity, self.project, self.id]

    @property
    def url(self) -> str:
        """The run's page on the server that it was read from."""
        base_url = self._source.transport.settings.base_url
        page = project_url(base_url, self.entity, self.project)
        return f"{page}/runs/{quote(self.id, safe='')}"

    @property
    def state(self) -> str:
        """running, finished, failed, crashed, killed, pending, preempting, preempted, or newer."""
        return str(self._node.get("state") or "unknown")

    @property
    def commit(self) -> str | None:
        """The git commit that the run was started from."""
        return self._node.get("commit")

    @property
    def created_at(self) -> datetime | None:
        """When the run was created, UTC, by the server's clock."""
        return _time(self._node.get("createdAt"))

    @property
    def heartbeat_at(self) -> datetime | None:
        """When the run last wrote, UTC, by the server's clock; a later edit does not move it."""
        return _time(self._node.get("heartbeatAt"))

    @property
    def user(self) -> User | None:
        """Who started the run; None for a deleted account."""
        return user_of(self._node.get("user"))

    @property
    def username(self) -> str | None:
        """The name of who started the run; None for a deleted account."""
        return self.user.username if self.user else None

    @property
    def sweep_name(self) -> str | None:
        """The id of the sweep that the run belongs to."""
        return self._node.get("sweepName")

    @cached_property
    def sweep(self) -> Sweep | None:
        """The sweep that the run belongs to, or None; one request."""
        from wb_ops.client.sweeps import fetch_sweep

        name = self.sweep_name
        return fetch_sweep(self._source, self._reader, name) if name else None

    @property
    def description(self) -> str | None:
        """A longer note, which W&B's app no longer shows."""
        return self._node.get("description")

    @property
    def read_only(self) -> bool:
        """Whether the server refuses changes with this key."""
        return bool(self._node.get("readOnly"))

    @property
    def history_line_count(self) -> int:
        """How many history rows the server counted when this run was read."""
        return int(self._node.get("historyLineCount") or 0)

    @property
    def lastHistoryStep(self) -> int:
        """The last step the server knows of, or -1."""
        step = last_step(self._node.get("historyKeys"))
        return -1 if step is None else step

    @property
    def history_keys(self) -> dict[str, Any] | None:
        """What the server keeps about each metric: types, counts, `lastStep`. None if nothing."""
        keys = self._node.get("historyKeys")
        if isinstance(keys, str):
            keys = parse_json(keys)
        return keys if isinstance(keys, dict) else None

    @property
    def summary_metrics(self) -> dict[str, Any]:
        """The summary as it was read, as a plain dict."""
        return self._document("summaryMetrics", self._node.get("summaryMetrics"))

    @cached_property
    def system_metrics(self) -> dict[str, Any]:
        """The last value of each system metric; one request."""
        operation = self._source.operation("RunSystemMetrics", SYSTEM_METRICS, name=self.id)
        answer = self._source.fetch_run_fields(operation)
        return self._document("systemMetrics", answer.get("systemMetrics"))

    @property
    def rawconfig(self) -> dict[str, Any]:
        """The config with W&B's own members (`_wandb`), each unwrapped once."""
        document = self._document("config", self._node.get("config"))
        return {key: unwrap_member(value) for key, value in document.items()}

    def _document(self, name: str, text: str | None) -> dict[str, Any]:
        try:
            document = parse_json(text) if text else {}
        except ValueError as exc:
            path = "/".join(self.path)
            raise MalformedResponse(f"{name} of run {path} cannot be read: {exc}", exc) from exc
        return document if isinstance(document, dict) else {}


def _camel(name: str) -> str:
    return re.sub("_([a-z])", lambda found: found[1].upper(), name)


def _time(text: str | None) -> datetime | None:
    return parse_server_time(text) if text else None
