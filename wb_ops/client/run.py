"""Run under the names that W&B's guide uses: read it, change it, read its history."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from wb_ops.client.documents import dump_value
from wb_ops.client.files import File, fetch_file, iter_files
from wb_ops.client.history import HistoryReader, Require, Selection
from wb_ops.client.sampled import sampled_history
from wb_ops.client.source import Node, RunSource
from wb_ops.client.summary import Summary
from wb_ops.client.writing import Change, write_changes
from wb_ops.errors import (
    IncompleteHistory,
    MalformedResponse,
    NotFound,
    OutcomeUnknown,
)
from wb_ops.settings import project_url
from wb_ops.tables.runs import OPEN_STATES, last_step, parse_server_time, unwrap_config
from wb_ops.tables.values import parse_json

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

log = logging.getLogger("wb_ops")

# An attribute of Run that can be set -> the input field that carries it.
_FIELDS = {
    "name": "displayName",
    "tags": "tags",
    "notes": "notes",
    "group": "groupName",
    "job_type": "jobType",
}


class Run:
    """One W&B run, as it was when it was read.

    `id` is the run id in its URL; `name` is the display name.
    """

    def __init__(self, source: RunSource, reader: HistoryReader, node: Node) -> None:
        self._source = source
        self._reader = reader
        self._load(node)

    def _load(self, node: Node) -> None:
        self._node = node
        self.__dict__.pop("config", None)
        summary = self.__dict__.get("summary")
        if summary is not None and not summary.has_changes:
            del self.__dict__["summary"]
        self.name: str | None = node.get("displayName")
        self.tags: list[str] = list(node.get("tags") or [])
        self.notes: str | None = node.get("notes")
        self.group: str | None = node.get("group")
        self.job_type: str | None = node.get("jobType")

    def __repr__(self) -> str:
        return f"<Run {'/'.join(self.path)} ({self.state})>"

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
    def username(self) -> str | None:
        """Who started the run; None for a deleted account."""
        return (self._node.get("user") or {}).get("username")

    @property
    def sweep_name(self) -> str | None:
        """The id of the sweep that the run belongs to."""
        return self._node.get("sweepName")

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

    @cached_property
    def config(self) -> dict[str, Any]:
        """The config, unwrapped once, without W&B's own `_wandb`. Change it and call `update()`."""
        return self._read_config()

    def _read_config(self) -> dict[str, Any]:
        try:
            return unwrap_config(self._node.get("config"))
        except ValueError as exc:
            raise MalformedResponse(
                f"The config of run {'/'.join(self.path)} cannot be read: {exc}", exc
            ) from exc

    @cached_property
    def summary(self) -> Summary:
        """The summary; `run.summary.update({...})` writes single keys safely."""
        return Summary(self._node.get("summaryMetrics"), self._write_summary)

    @cached_property
    def metadata(self) -> dict[str, Any] | None:
        """What the run recorded about its machine and program, or None; two requests."""
        try:
            text = self.file("wandb-metadata.json").read().decode("utf-8", "replace")
        except NotFound:
            return None
        document = parse_json(text)
        return document if isinstance(document, dict) else None

    def history_table(
        self,
        keys: Sequence[str] | None = None,
        min_step: int | None = None,
        max_step: int | None = None,
        require: Require = "any",
        require_complete: bool = False,
    ) -> pa.Table:
        """Return every logged row, unsampled, as an Arrow table in `_step` order.

        One row a step; a column for each metric under its own name, null where it was not
        logged. With `keys`, the rows that hold any of them (`require="all"`: all of them).
        `min_step` is included, `max_step` is not. One request, and one for each parquet file or
        window of steps.

        Raises:
            IncompleteHistory: with `require_complete`, the rows do not add up to what the server
                counts, or the run still logs (retry: backoff).
            CommError: by the table in `errors`.
        """
        chosen = None if keys is None else tuple(keys)
        selection = Selection(chosen, min_step, max_step, require)
        with self._reader.read(self._source, self.id, selection) as raw:
            merged = raw.merged()
            if require_complete:
                self._check_complete(raw.line_count, merged.rows_read, merged.distinct_steps)
            return raw.select(merged.table)

    def _check_complete(self, line_count: int, rows_read: int, distinct_steps: int) -> None:
        path = "/".join(self.path)
        if self.state in OPEN_STATES:
            raise IncompleteHistory(f"Run {path} is {self.state}: it may still log.", path=path)
        if line_count not in (rows_read, distinct_steps):
            raise IncompleteHistory(
                f"Run {path}: {rows_read} rows read, the server counts {line_count}. Rows that "
                "were logged a short time ago may not be served yet.",
                path=path,
            )

    def scan_history(
        self,
        keys: Sequence[str] | None = None,
        page_size: int = 1000,
        min_step: int | None = None,
        max_step: int | None = None,
        require: Require = "any",
    ) -> Iterator[dict[str, Any]]:
        """Yield every logged row as a dict of what was logged; the same rows as `history_table`.

        Lazy: memory holds about 100,000 rows of the history at a time, and `page_size` rows are
        turned into Python values at a time.
        """
        from wb_ops.tables.history import to_rows

        chosen = None if keys is None else tuple(keys)
        selection = Selection(chosen, min_step, max_step, require)
        with self._reader.read(self._source, self.id, selection) as raw:
            for merged in raw.iter_merged():
                table = raw.select(merged.table)
                for start in range(0, table.num_rows, page_size):
                    yield from to_rows(table.slice(start, page_size))

    def history(
        self,
        samples: int = 500,
        keys: Sequence[str] | None = None,
        x_axis: str = "_step",
        pandas: bool = True,
        stream: str = "default",
    ) -> pd.DataFrame | list[dict[str, Any]]:
        """Return about `samples` rows, **sampled by the server**; one request.

        With `keys` only rows that hold all of them (the server's rule). `stream="system"` gives
        the system metrics. For every row use `history_table` or `scan_history`.
        """
        rows = sampled_history(self._source, self.id, samples, keys, x_axis, stream)
        if not pandas:
            return rows
        import pandas as pd

        return pd.DataFrame.from_records(rows)

    def file(self, name: str) -> File:
        """Return one file of the run; one request.

        Raises:
            NotFound: the run has no such file (retry: never).
        """
        return fetch_file(self._source, self.id, name)

    def files(self) -> Iterator[File]:
        """Yield the run's files lazily."""
        return iter_files(self._source, self.id)

    def update(self) -> None:
        """Write what was changed on this object: name, tags, notes, group, job_type, config.

        Only changed fields are sent, changed config keys are merged into the config as it is
        now, and the result is read back. Three requests. The summary has its own `update()`.

        Raises:
            OutcomeUnknown: the change is not what is read back (retry: verify).
        """
        fields = {
            sent: getattr(self, name)
            for name, sent in _FIELDS.items()
            if getattr(self, name) != self._as_read(sent)
        }
        before = {name: dump_value(value) for name, value in self._read_config().items()}
        now = {name: dump_value(value) for name, value in self.config.items()}
        changed = {name: text for name, text in now.items() if before.get(name) != text}
        removed = frozenset(before) - frozenset(now)
        if fields or changed or removed:
            change = Change(self.id, config=changed, removed_config=removed, fields=fields)
            self._load(self._write(change))

    def _merged_tags(self, now: Sequence[str]) -> list[str]:
        """The tags as they are on the server, with those added and removed here."""
        before = self._node.get("tags") or []
        kept = [tag for tag in now if tag in self.tags or tag not in before]
        return kept + [tag for tag in self.tags if tag not in kept and tag not in before]

    def _as_read(self, sent: str) -> object:
        name = "group" if sent == "groupName" else sent
        value = self._node.get(name)
        return list(value or []) if sent == "tags" else value

    def _write_summary(self, changes: dict[str, str], removed: set[str]) -> str | None:
        node = self._write(Change(self.id, summary=changes, removed=frozenset(removed)))
        self._node = node
        text = node.get("summaryMetrics")
        return str(text) if text is not None else None

    def _write(self, change: Change) -> Node:
        fresh = {self.id: self._source.fetch_node(self.id)}
        if "tags" in change.fields:
            merged = self._merged_tags(fresh[self.id].get("tags") or [])
            change = replace(change, fields={**change.fields, "tags": merged})
        written = write_changes(self._source.transport, self._source, [change], fresh)[0]
        path = "/".join(self.path)
        if written.node is None:
            raise NotFound(f"Run {path} was deleted while it was written to.", path=path)
        if written.unverified:
            raise OutcomeUnknown(
                f"Run {path} does not hold what was written: {', '.join(written.unverified)}. "
                "Another writer may have changed it; read it and decide.",
                path=path,
            )
        return written.node


def _time(text: str | None) -> datetime | None:
    return parse_server_time(text) if text else None
