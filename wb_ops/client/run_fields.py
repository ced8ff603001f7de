"""What the server says of a run, under W&B's names: read-only, typed, as it was when read."""

from __future__ import annotations

import re
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from wb_ops.client.items import ProjectItem
from wb_ops.client.operations import SYSTEM_METRICS
from wb_ops.client.users import User, user_of
from wb_ops.errors import MalformedResponse
from wb_ops.tables.runs import last_step, read_history_keys, unwrap_member
from wb_ops.tables.values import parse_json

if TYPE_CHECKING:
    from wb_ops.client.sweeps import Sweep


class RunFields(ProjectItem):
    """The fields of one run.

    The server's own names (`run.displayName`, `run.createdAt`, ...) give their values as they
    came, as in W&B's SDK. `state` is running, finished, failed, crashed, killed, pending,
    preempting, preempted, or newer.
    """

    _pages = "runs"

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            node = self.__dict__.get("_node", {})
            for known in (name, _camel(name)):
                if known in node and not name.startswith("_"):
                    return node[known]
            raise AttributeError(f"Run has no attribute {name!r}")

    @property
    def storage_id(self) -> str:
        """The server's global id, which writes address."""
        return str(self._node["id"])

    @property
    def commit(self) -> str | None:
        """The git commit that the run was started from."""
        return self._node.get("commit")

    @property
    def heartbeat_at(self) -> datetime | None:
        """When the run last wrote, UTC, by the server's clock; a later edit does not move it."""
        return self._time("heartbeatAt")

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
        return read_history_keys(self._node.get("historyKeys"))

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
        document = self._parsed(name, text) if text else {}
        return document if isinstance(document, dict) else {}

    def _parsed(self, name: str, text: str) -> object:
        try:
            return parse_json(text)
        except ValueError as exc:
            path = "/".join(self.path)
            raise MalformedResponse(f"{name} of run {path} cannot be read: {exc}", exc) from exc


def _camel(name: str) -> str:
    return re.sub("_([a-z])", lambda found: found[1].upper(), name)
