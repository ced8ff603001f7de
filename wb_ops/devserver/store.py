"""Projects and runs: state and rules, no HTTP and no GraphQL."""

from __future__ import annotations

import base64
import json
import sqlite3
from collections.abc import Mapping

from wb_ops.devserver.database import Database
from wb_ops.devserver.wire_time import now_text

RUN_STATES = frozenset(
    {"running", "finished", "failed", "crashed", "killed", "preempting", "preempted", "pending"}
)
_EDITABLE = frozenset(
    {
        "display_name",
        "state",
        "config",
        "summary",
        "system_metrics",
        "tags",
        "notes",
        "description",
        "run_group",
        "job_type",
        "commit_sha",
        "sweep",
        "host",
        "program",
        "repo",
        "username",
        "read_only",
        "stopped",
        "created_at",
        "heartbeat_at",
        "updated_at",
        "parquet",
        "history_count",
        "events_count",
        "log_count",
        "history_version",
        "history_keys",
        "keys_version",
    }
)


class Store:
    """Projects and runs in the database."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def ensure_project(self, entity: str, name: str, username: str | None = None) -> int:
        """The key of a project, which is made where it does not exist."""
        with self.database.transaction():
            found = self.find_project(entity, name)
            if found is not None:
                return int(found["pk"])
            return self.database.write(
                "insert into project(entity, name, created_at, username) values(?, ?, ?, ?)",
                (entity, name, now_text(), username),
            )

    def find_project(self, entity: str, name: str) -> sqlite3.Row | None:
        """A project, or None where it does not exist."""
        return self.database.read_one(
            "select * from project where entity = ? and name = ?", (entity, name)
        )

    def list_projects(self, entity: str) -> list[sqlite3.Row]:
        """The projects of an entity in the order they were made."""
        return self.database.read("select * from project where entity = ? order by pk", (entity,))

    def find_run(self, entity: str, project: str, run_id: str) -> sqlite3.Row | None:
        """A run by its path, or None."""
        return self.database.read_one(
            "select run.*, project.entity, project.name as project from run "
            "join project on project.pk = run.project_pk "
            "where project.entity = ? and project.name = ? and run.name = ?",
            (entity, project, run_id),
        )

    def find_run_by_storage_id(self, storage_id: str) -> sqlite3.Row | None:
        """A run by its GraphQL id, or None."""
        return self.database.read_one(
            "select run.*, project.entity, project.name as project from run "
            "join project on project.pk = run.project_pk where run.storage_id = ?",
            (storage_id,),
        )

    def load_run(self, pk: int) -> sqlite3.Row:
        """A run by its key."""
        return self.load_runs([pk])[0]

    def load_runs(self, pks: list[int]) -> list[sqlite3.Row]:
        """Runs in the order of their keys in ``pks``; runs deleted meanwhile are left out."""
        rows = self.database.read(
            "select run.*, project.entity, project.name as project from run "
            "join project on project.pk = run.project_pk "
            "where run.pk in (select value from json_each(?))",
            (json.dumps(pks),),
        )
        by_pk = {row["pk"]: row for row in rows}
        return [by_pk[pk] for pk in pks if pk in by_pk]

    def count_runs(self, entity: str, project: str) -> int:
        """How many runs a project holds."""
        row = self.database.read_one(
            "select count(*) from run join project on project.pk = run.project_pk "
            "where project.entity = ? and project.name = ?",
            (entity, project),
        )
        return int(row[0]) if row else 0

    def insert_run(
        self, entity: str, project: str, run_id: str, fields: Mapping[str, object]
    ) -> int:
        """Make a run.

        Raises:
            ValueError: the path holds a run of this id already, or the state is unknown.
        """
        created_at = fields.get("created_at") or now_text()
        values: dict[str, object] = {
            "state": "running",
            "config": "{}",
            "summary": "{}",
            "parquet": "auto",
            **fields,
            "created_at": created_at,
            "heartbeat_at": fields.get("heartbeat_at") or created_at,
        }
        values["updated_at"] = fields.get("updated_at") or values["heartbeat_at"]
        _check_state(values["state"])
        with self.database.transaction():
            if self.find_run(entity, project, run_id) is not None:
                raise ValueError(f"run {entity}/{project}/{run_id} exists already")
            columns = {
                "project_pk": self.ensure_project(entity, project),
                "name": run_id,
                "storage_id": storage_id_of(entity, project, run_id),
                **_only_editable(values),
            }
            pk = self.database.write(
                f"insert into run({', '.join(columns)}) values({', '.join('?' * len(columns))})",
                tuple(columns.values()),
            )
            self._mark_project_changed(pk)
        return pk

    def update_run(self, pk: int, changes: Mapping[str, object]) -> None:
        """Replace columns of a run, each whole."""
        columns = _only_editable(changes)
        if not columns:
            return
        _check_state(columns.get("state", "running"))
        assignments = ", ".join(f"{name} = ?" for name in columns)
        with self.database.transaction():
            self.database.write(
                f"update run set {assignments} where pk = ?", (*columns.values(), pk)
            )
            self._mark_project_changed(pk)

    def delete_run(self, pk: int) -> None:
        """Remove a run with its history, logs and files."""
        with self.database.transaction():
            self._mark_project_changed(pk)
            for table in ("history", "stream", "file"):
                self.database.write(f"delete from {table} where run_pk = ?", (pk,))
            self.database.write("delete from run where pk = ?", (pk,))

    def delete_project(self, entity: str, name: str) -> None:
        """Remove a project with its runs; what does not exist is no error."""
        project = self.find_project(entity, name)
        if project is None:
            return
        with self.database.transaction():
            for run in self.database.read(
                "select pk from run where project_pk = ?", (project["pk"],)
            ):
                self.delete_run(run["pk"])
            self.database.write("delete from sweep where project_pk = ?", (project["pk"],))
            self.database.write("delete from project where pk = ?", (project["pk"],))

    def _mark_project_changed(self, run_pk: int) -> None:
        self.database.write(
            "update project set version = version + 1 "
            "where pk = (select project_pk from run where pk = ?)",
            (run_pk,),
        )


def storage_id_of(entity: str, project: str, run_id: str) -> str:
    """The opaque GraphQL id of a run, which mutations need."""
    return base64.b64encode(f"Run:v1:{run_id}:{project}:{entity}".encode()).decode()


def _only_editable(values: Mapping[str, object]) -> dict[str, object]:
    unknown = values.keys() - _EDITABLE
    if unknown:
        raise TypeError(f"unknown run fields: {', '.join(sorted(unknown))}")
    return dict(values)


def _check_state(state: object) -> None:
    if state not in RUN_STATES:
        raise ValueError(f"unknown run state {state!r}; one of {', '.join(sorted(RUN_STATES))}")
