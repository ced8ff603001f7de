"""Run under the names that W&B's guide uses: read it, change it, read its history."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from wb_ops.client.documents import dump_value, renew
from wb_ops.client.files import FILES_PER_PAGE, File, Files, fetch_file
from wb_ops.client.history import HistoryReader
from wb_ops.client.operations import RUN_STATE
from wb_ops.client.run_history import RunHistory
from wb_ops.client.source import Node, RunSource
from wb_ops.client.summary import Summary
from wb_ops.client.texts import texts_of
from wb_ops.client.writing import Change, write_run
from wb_ops.errors import MalformedResponse, NotFound
from wb_ops.tables.runs import OPEN_STATES, unwrap_config

# An attribute of Run that can be set -> the input field that carries it.
_FIELDS = {
    "name": "displayName",
    "notes": "notes",
    "description": "description",
    "group": "groupName",
    "job_type": "jobType",
}


class Run(RunHistory):
    """One W&B run, as it was when it was read.

    `id` is the run id in its URL; `name` is the display name. `name`, `tags`, `notes`, `group`,
    `job_type`, `description` (which W&B's app no longer shows), `config` and `summary` can be
    changed: `update()` writes them.
    """

    def __init__(self, source: RunSource, reader: HistoryReader, node: Node) -> None:
        super().__init__(source, reader, node)
        self.tags: list[str] = []
        self._made: dict[str, Any] = {"tags": self.tags}
        self._load(node)

    def _load(self, node: Node) -> None:
        self._node = node
        if "config" in self.__dict__:
            self._renew("config", self._read_config())
        self._renew("tags", list(node.get("tags") or []))
        self.name: str | None = node.get("displayName")
        self.notes: str | None = node.get("notes")
        self.description: str | None = node.get("description")
        self.group: str | None = node.get("group")
        self.job_type: str | None = node.get("jobType")

    def _renew(self, name: str, read: dict[str, Any] | list[str]) -> None:
        """Bring what a program may hold to what was read, in place, unless it is its own."""
        held = self.__dict__[name]
        is_own = name not in self._made or held is not self._made[name]
        if is_own:
            # What was assigned may be shared with other runs, whose tags and config differ.
            if held != read:
                self.__dict__[name] = self._made[name] = read
        elif isinstance(read, dict):
            renew(held, read)
        else:
            held[:] = read

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
        config = self._made["config"] = self._read_config()
        return config

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
        document = self._parsed("metadata", text)
        return document if isinstance(document, dict) else None

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

        Raises:
            InvalidRequest: names and a pattern, or names that are no list of texts (retry: never).
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
            node = self._source.fetch_node(self.id)
            summary = self.__dict__.get("summary")
            if summary is not None and not summary.has_changes:
                summary.take(node.get("summaryMetrics"))
            self._load(node)
        return self._node

    # A run is never read in part, whatever it was listed with.
    load_full_data = load

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
                itself would replace the change, or be replaced by it; or `tags` is no list of
                texts (retry: never).
            OutcomeUnknown: the change is not what is read back (retry: verify).
        """
        fields = {
            sent: getattr(self, name)
            for name, sent in _FIELDS.items()
            if getattr(self, name) != self._as_read(sent)
        }
        tags = self._node.get("tags") or []
        wanted = texts_of("tags", self.tags)
        added = tuple(dict.fromkeys(tag for tag in wanted if tag not in tags))
        taken_off = frozenset(tags) - frozenset(wanted)
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
                include_running=include_running,
                fields=fields,
            )
            node = write_run(self._source, change)
            self.summary.take(node.get("summaryMetrics"))
            self._load(node)

    save = update

    def _as_read(self, sent: str) -> object:
        return self._node.get("group" if sent == "groupName" else sent)

    def _write_summary(
        self, changes: dict[str, str], removed: set[str], include_running: bool
    ) -> str | None:
        change = Change(
            self.id, summary=changes, removed=frozenset(removed), include_running=include_running
        )
        node = write_run(self._source, change)
        text = node.get("summaryMetrics")
        # The summary alone: `update` compares name, tags, config with what they were read from.
        self._node = {**self._node, "summaryMetrics": text}
        return str(text) if text is not None else None
