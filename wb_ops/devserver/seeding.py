"""Runs without the SDK: made, edited and removed at will, timestamps and all."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Required, TypedDict, cast

from wb_ops.devserver.backend import Backend
from wb_ops.devserver.errors import not_found
from wb_ops.devserver.jsontext import JsonSource, to_text
from wb_ops.devserver.store import storage_id_of
from wb_ops.devserver.wire_time import now_text, to_wire_time

Moment = datetime | str


class RunEdit(TypedDict, total=False):
    """Fields of a run that can be set; documents are dicts or raw JSON text.

    ``config`` is the plain form, which is wrapped as W&B stores it; ``raw_config`` is stored as it
    is. ``parquet`` is ``"auto"`` (ended runs are exported), ``"off"`` or a number of leading rows.
    """

    config: JsonSource
    raw_config: JsonSource
    summary: JsonSource
    system_metrics: JsonSource
    state: str
    created_at: Moment
    heartbeat_at: Moment
    updated_at: Moment
    tags: Sequence[str]
    display_name: str | None
    notes: str | None
    description: str | None
    group: str | None
    job_type: str | None
    commit: str | None
    sweep: str | None
    host: str | None
    program: str | None
    repo: str | None
    user: str | None
    read_only: bool
    stopped: bool
    parquet: str | int


class RunFields(RunEdit, total=False):
    """What a new run may have beside its path: fields, rows and files."""

    history: Iterable[JsonSource]
    events: Iterable[JsonSource]
    log: Iterable[str]
    files: Mapping[str, bytes | str]


class RunSeed(RunFields, total=False):
    """A run to make."""

    entity: Required[str]
    project: Required[str]
    run_id: Required[str]


class Seeder:
    """Makes and edits runs in a backend."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def seed_runs(self, seeds: Iterable[RunSeed]) -> list[str]:
        """Make runs in one transaction; their storage ids."""
        with self._backend.database.transaction():
            return [self.seed_run(seed) for seed in seeds]

    def seed_run(self, seed: RunSeed) -> str:
        """Make a run; the summary is the last history line unless it is given."""
        path = seed["entity"], seed["project"], seed["run_id"]
        history = list(seed.get("history") or ())
        columns: dict[str, object] = {"state": "finished", "username": "dev"}
        if history:
            columns["summary"] = to_text(history[-1])
        columns |= _columns(seed, _ROWS)
        columns.setdefault("display_name", seed["run_id"])
        backend = self._backend
        with backend.database.transaction():
            pk = backend.store.insert_run(*path, columns)
            if history:
                backend.lines.write_history(pk, 0, history)
            for name in ("events", "log"):
                rows = list(cast(Iterable[JsonSource], seed.get(name) or ()))
                if rows:
                    backend.lines.write_stream(pk, name, 0, rows)
            for file_name, content in (seed.get("files") or {}).items():
                data = content.encode() if isinstance(content, str) else content
                backend.files.write(pk, file_name, data)
        return storage_id_of(*path)

    def edit_run(self, entity: str, project: str, run_id: str, edit: RunEdit) -> None:
        """Replace fields of a run; ``updated_at`` is now unless it is given."""
        run = self.find(entity, project, run_id)
        columns = {"updated_at": now_text(), **_columns(edit)}
        self._backend.store.update_run(run["pk"], columns)

    def append_history(
        self, entity: str, project: str, run_id: str, rows: Iterable[JsonSource]
    ) -> None:
        """Append history lines as a training process does: the heartbeat moves."""
        with self._backend.database.transaction():
            run = self.find(entity, project, run_id)
            self._backend.lines.write_history(run["pk"], run["history_count"], rows)
            now = now_text()
            self._backend.store.update_run(run["pk"], {"heartbeat_at": now, "updated_at": now})

    def finish_run(self, entity: str, project: str, run_id: str, exit_code: int) -> None:
        """End a run: ``finished`` for exit code 0, else ``failed``."""
        now = now_text()
        state = "finished" if exit_code == 0 else "failed"
        edit: RunEdit = {"state": state, "heartbeat_at": now, "updated_at": now}
        self.edit_run(entity, project, run_id, edit)

    def delete_run(self, entity: str, project: str, run_id: str) -> None:
        """Remove a run."""
        self._backend.store.delete_run(self.find(entity, project, run_id)["pk"])

    def find(self, entity: str, project: str, run_id: str) -> sqlite3.Row:
        """A run's row.

        Raises:
            StatusError: 404, there is no such run.
        """
        run = self._backend.store.find_run(entity, project, run_id)
        if run is None:
            raise not_found(f"run {entity}/{project}/{run_id}")
        return run


def wrap_config(config: JsonSource) -> str:
    """A plain config as W&B stores it: ``{"lr": 0.1}`` becomes ``{"lr": {"value": 0.1}}``."""
    plain = json.loads(config) if isinstance(config, str) else config
    return json.dumps(
        {key: value if key == "_wandb" else {"value": value} for key, value in plain.items()}
    )


def _moment(value: object) -> str:
    return to_wire_time(value) if isinstance(value, str | datetime) else now_text()


_COLUMNS: dict[str, tuple[str, Callable[[object], object]]] = {
    "config": ("config", lambda value: wrap_config(cast(JsonSource, value))),
    "raw_config": ("config", to_text),
    "summary": ("summary", to_text),
    "system_metrics": ("system_metrics", to_text),
    "created_at": ("created_at", _moment),
    "heartbeat_at": ("heartbeat_at", _moment),
    "updated_at": ("updated_at", _moment),
    "tags": ("tags", lambda value: json.dumps(list(cast(Sequence[str], value)))),
    "group": ("run_group", lambda value: value),
    "commit": ("commit_sha", lambda value: value),
    "user": ("username", lambda value: value),
    "read_only": ("read_only", bool),
    "stopped": ("stopped", bool),
    "parquet": ("parquet", str),
}
_SAME_NAME = frozenset(
    {
        "state",
        "display_name",
        "notes",
        "description",
        "job_type",
        "sweep",
        "host",
        "program",
        "repo",
    }
)
_ROWS = frozenset({"entity", "project", "run_id", "history", "events", "log", "files"})


def _columns(edit: Mapping[str, object], others: frozenset[str] = frozenset()) -> dict[str, object]:
    unknown = edit.keys() - _COLUMNS.keys() - _SAME_NAME - others
    if unknown:
        raise TypeError(f"unknown run fields: {', '.join(sorted(unknown))}")
    columns: dict[str, object] = {}
    for name, value in edit.items():
        if name in _COLUMNS:
            column, convert = _COLUMNS[name]
            columns[column] = convert(value)
        elif name in _SAME_NAME:
            columns[name] = value
    return columns
