"""Run under the names that W&B's guide uses: read it, change it, read its history."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from wb_ops.client.documents import dump_value
from wb_ops.client.files import FILES_PER_PAGE, File, Files, fetch_file
from wb_ops.client.history import HistoryReader, RawHistory, Require, Selection
from wb_ops.client.operations import RUN_STATE
from wb_ops.client.run_fields import RunFields
from wb_ops.client.sampled import require_list, sampled_history
from wb_ops.client.source import Node, RunSource
from wb_ops.client.summary import Summary
from wb_ops.client.writing import Change, write_changes
from wb_ops.errors import (
    IncompleteHistory,
    InvalidRequest,
    MalformedResponse,
    NotFound,
    OutcomeUnknown,
)
from wb_ops.tables.runs import OPEN_STATES, unwrap_config
from wb_ops.tables.values import parse_json

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

log = logging.getLogger("wb_ops")

# An attribute of Run that can be set -> the input field that carries it.
_FIELDS = {
    "name": "displayName",
    "notes": "notes",
    "description": "description",
    "group": "groupName",
    "job_type": "jobType",
}


class Run(RunFields):
    """One W&B run, as it was when it was read.

    `id` is the run id in its URL; `name` is the display name. `name`, `tags`, `notes`, `group`,
    `job_type`, `description` (which W&B's app no longer shows), `config` and `summary` can be
    changed: `update()` writes them.
    """

    def __init__(self, source: RunSource, reader: HistoryReader, node: Node) -> None:
        super().__init__(source, reader, node)
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
        self.description: str | None = node.get("description")
        self.group: str | None = node.get("group")
        self.job_type: str | None = node.get("jobType")

    @property
    def display_name(self) -> str | None:
        """The same as `name`."""
        return self.name

    @display_name.setter
    def display_name(self, name: str | None) -> None:
        self.name = name

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
                counts (asked for without `min_step` and `max_step`), or the run still logs (retry:
                backoff).
            CommError: by the table in `errors`.
        """
        if require_complete and self.state in OPEN_STATES:
            path = "/".join(self.path)
            raise IncompleteHistory(f"Run {path} is {self.state}: it may still log.", path=path)
        selection = Selection(_keys(keys), min_step, max_step, require)
        with self._read(selection, require_complete=require_complete) as raw:
            return raw.select(raw.merged().table)

    def _read(self, selection: Selection, *, require_complete: bool = False) -> RawHistory:
        raw = self._reader.read(self._source, self.id, selection)
        return replace(raw, requires_complete=require_complete)

    def scan_history(
        self,
        keys: Sequence[str] | None = None,
        page_size: int = 1000,
        min_step: int | None = None,
        max_step: int | None = None,
        require: Require = "any",
        use_cache: bool = True,
    ) -> Iterator[dict[str, Any]]:
        """Yield every logged row as a dict of what was logged; the same rows as `history_table`.

        `use_cache` is taken for the sake of W&B's signature: nothing is cached here, so that an
        old copy is never read. Lazy: memory holds about 100,000 rows of the history at a time,
        and `page_size` rows are turned into Python values at a time.

        Raises:
            InvalidRequest: an argument that is none; at once (retry: never).
        """
        if page_size < 1:
            raise InvalidRequest(f"page_size={page_size}: give 1 or more.")
        selection = Selection(_keys(keys), min_step, max_step, require)
        return self._iter_rows(selection, page_size)

    def _iter_rows(self, selection: Selection, page_size: int) -> Iterator[dict[str, Any]]:
        from wb_ops.tables.history import to_rows

        with self._read(selection) as raw:
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

    def files(
        self,
        names: Sequence[str] | None = None,
        pattern: str | None = None,
        per_page: int = FILES_PER_PAGE,
    ) -> Files:
        """Return the run's files, list-like and lazy, `per_page` a request.

        `names` are exact; `pattern` is SQL's LIKE: "%.json" are the files that end so.
        """
        return Files(self._source, self.id, names, pattern, per_page)

    def load(self, force: bool = False) -> dict[str, Any]:
        """Read the run anew with `force`; one request. Unsaved changes of fields are forgotten.

        Returns:
            The server's fields as they came.
        """
        if force:
            for name in ("metadata", "sweep", "system_metrics"):
                self.__dict__.pop(name, None)
            self._load(self._source.fetch_node(self.id))
        return self._node

    def wait_until_finished(self, poll_s: float = 5.0) -> None:
        """Return when the run has ended, in whatever way; one request each `poll_s` seconds.

        It holds its thread: orchestrators have sensors and triggers for this.
        """
        operation = self._source.operation("RunState", RUN_STATE, name=self.id)
        while (state := self._source.fetch_run_fields(operation).get("state")) in OPEN_STATES:
            time.sleep(poll_s)
        self._node = {**self._node, "state": state}

    def update(self, *, include_running: bool = False) -> None:
        """Write what was changed: name, tags, notes, group, job_type, description, config, summary.

        Only changed fields are sent, changed keys of config and summary are merged into both as
        they are now, and the result is read back. Three requests, none without a change.

        Raises:
            InvalidRequest: the run still runs, and `include_running` is not given: what it writes
                itself would replace the change, or be replaced by it (retry: never).
            OutcomeUnknown: the change is not what is read back (retry: verify).
        """
        fields = {
            sent: getattr(self, name)
            for name, sent in _FIELDS.items()
            if getattr(self, name) != self._as_read(sent)
        }
        tags = self._node.get("tags") or []
        added = tuple(dict.fromkeys(tag for tag in self.tags if tag not in tags))
        taken_off = frozenset(tags) - frozenset(self.tags)
        before = {name: dump_value(value) for name, value in self._read_config().items()}
        now = {name: dump_value(value) for name, value in self.config.items()}
        changed = {name: text for name, text in now.items() if before.get(name) != text}
        removed = frozenset(before) - frozenset(now)
        summary, gone = self.summary.changes()
        if fields or added or taken_off or changed or removed or summary or gone:
            change = Change(
                self.id,
                summary=summary,
                removed=frozenset(gone),
                config=changed,
                removed_config=removed,
                added_tags=added,
                removed_tags=taken_off,
                fields=fields,
            )
            node = self._write(change, include_running=include_running)
            self.summary.take(node.get("summaryMetrics"))
            self._load(node)

    save = update

    def _as_read(self, sent: str) -> object:
        return self._node.get("group" if sent == "groupName" else sent)

    def _write_summary(
        self, changes: dict[str, str], removed: set[str], include_running: bool
    ) -> str | None:
        change = Change(self.id, summary=changes, removed=frozenset(removed))
        node = self._write(change, include_running=include_running)
        text = node.get("summaryMetrics")
        # The summary alone: `update` compares name, tags, config with what they were read from.
        self._node = {**self._node, "summaryMetrics": text}
        return str(text) if text is not None else None

    def _write(self, change: Change, *, include_running: bool) -> Node:
        fresh = {self.id: self._source.fetch_node(self.id)}
        written = write_changes(
            self._source.transport,
            self._source,
            [replace(change, include_running=include_running)],
            fresh,
        )[0]
        path = "/".join(self.path)
        if written.error is not None:
            raise OutcomeUnknown(
                f"Run {path} cannot be read back: {written.error} Read it later and compare.",
                path=path,
            ) from written.error
        if written.node is None:
            raise NotFound(f"Run {path} was deleted while it was written to.", path=path)
        if written.unverified:
            raise OutcomeUnknown(
                f"Run {path} does not hold what was written: {', '.join(written.unverified)}. "
                "Another writer may have changed it; read it and decide.",
                path=path,
            )
        return written.node


def _keys(keys: Sequence[str] | None) -> tuple[str, ...] | None:
    """The keys that are asked for; none at all means all of them, as in W&B's SDK."""
    require_list(keys)
    return tuple(keys) if keys else None
