"""Resolvers of ``Mutation``. A field is replaced whole; null leaves it as it is."""

from __future__ import annotations

import json
import secrets
import sqlite3
from collections.abc import Mapping
from typing import TypeAlias

from graphql import GraphQLError

from wb_ops.devserver.backend import RequestContext
from wb_ops.devserver.errors import StatusError, not_found
from wb_ops.devserver.nodes import Node, file_pk, run_node
from wb_ops.devserver.queries import DEFAULT_PROJECT
from wb_ops.devserver.wire_time import now_text

Input: TypeAlias = Mapping[str, object]

_COLUMNS = {
    "displayName": "display_name",
    "description": "description",
    "notes": "notes",
    "groupName": "run_group",
    "jobType": "job_type",
    "config": "config",
    "summaryMetrics": "summary",
    "tags": "tags",
    "commit": "commit_sha",
    "host": "host",
    "jobProgram": "program",
    "jobRepo": "repo",
    "sweep": "sweep",
}
_STATE_CHANGES = {
    "pending": frozenset({"running", "failed", "crashed", "preempted"}),
    "failed": frozenset({"pending", "running"}),
}


def upsert_bucket(context: RequestContext, fields: Input) -> Node:
    """Make a run or replace some of its fields.

    An edit moves ``updatedAt`` and leaves ``heartbeatAt``, which belongs to the training process.
    """
    with context.backend.database.transaction():
        existing = _find_target(context, fields)
        changes = _changes(fields)
        if existing is None:
            pk = _create(context, fields, changes)
        else:
            pk = existing["pk"]
            _refuse_read_only(existing)
            if changes:
                context.backend.store.update_run(pk, {**changes, "updated_at": now_text()})
        run = context.backend.store.load_run(pk)
    return {"bucket": run_node(run, context), "inserted": existing is None}


def _find_target(context: RequestContext, fields: Input) -> sqlite3.Row | None:
    if fields.get("id") is not None:
        return _run_by_id(context, fields["id"])
    name = fields.get("name")
    if name is None:
        return None
    entity, project = _home(context, fields)
    return context.backend.store.find_run(entity, project, str(name))


def _home(context: RequestContext, fields: Input) -> tuple[str, str]:
    entity = fields.get("entityName") or context.signed_in.default_entity
    return str(entity), str(fields.get("modelName") or DEFAULT_PROJECT)


def _changes(fields: Input) -> dict[str, object]:
    changes = {
        column: fields[name] for name, column in _COLUMNS.items() if fields.get(name) is not None
    }
    if "tags" in changes:
        changes["tags"] = json.dumps(changes["tags"])
    for column in ("config", "summary"):
        if column in changes:
            _refuse_no_object(column, str(changes[column]))
    return changes


def _refuse_no_object(column: str, text: str) -> None:
    try:
        document = json.loads(text, strict=False)
    except ValueError as error:
        raise StatusError(400, f"{column} is no JSON") from error
    if not isinstance(document, dict):
        raise StatusError(400, f"{column} is no JSON object")


def _create(context: RequestContext, fields: Input, changes: dict[str, object]) -> int:
    entity, project = _home(context, fields)
    store = context.backend.store
    store.ensure_project(entity, project, context.signed_in.username)
    state = str(fields.get("state") or "running")
    if state not in ("running", "pending"):
        raise StatusError(400, f"a run cannot be made {state}")
    number = store.count_runs(entity, project) + 1
    changes.setdefault("display_name", f"dev-run-{number}")
    run_id = str(fields.get("name") or secrets.token_hex(4))
    columns = {**changes, "state": state, "username": context.signed_in.username}
    return store.insert_run(entity, project, run_id, columns)


def delete_run(context: RequestContext, fields: Input) -> Node:
    """Remove a run for good."""
    run = _run_by_id(context, fields["id"])
    _refuse_read_only(run)
    context.backend.store.delete_run(run["pk"])
    return {"clientMutationId": fields.get("clientMutationId")}


def update_run_state(context: RequestContext, fields: Input) -> Node:
    """Move a run to ``pending`` or ``failed``, where that is allowed."""
    run, state = _run_by_id(context, fields["id"]), str(fields["state"])
    _refuse_read_only(run)
    if run["sweep"] is not None:
        raise GraphQLError("the state of a sweep's run cannot be updated")
    if run["state"] not in _STATE_CHANGES.get(state, frozenset()):
        raise GraphQLError(f"a run cannot go from {run['state']} to {state}")
    context.backend.store.update_run(run["pk"], {"state": state, "updated_at": now_text()})
    return {"success": True}


def stop_run(context: RequestContext, fields: Input) -> Node:
    """Ask the training process to stop; it learns of it with its next heartbeat."""
    run = _run_by_id(context, fields["id"])
    context.backend.store.update_run(run["pk"], {"stopped": 1})
    return {"success": True}


def create_run_files(context: RequestContext, fields: Input) -> Node:
    """Signed addresses on the storage origin, one for each file name, in the same order."""
    run = _run_by_path(context, fields)
    names = fields["files"]
    targets = [
        {
            "name": name,
            "uploadUrl": context.backend.signer.url("files", str(run["pk"]), name, verb="write"),
        }
        for name in (names if isinstance(names, list) else [])
    ]
    return {"runID": run["storage_id"], "uploadHeaders": [], "files": targets}


def mark_run_files_uploaded(context: RequestContext, fields: Input) -> Node:
    """Whether every named file has arrived."""
    run = _run_by_path(context, fields)
    names = fields["files"]
    stored = {row["name"] for row in context.backend.files.list_files(run["pk"])}
    return {"success": isinstance(names, list) and stored.issuperset(names)}


def delete_files(context: RequestContext, fields: Input) -> Node:
    """Remove files by their ids."""
    ids = fields["files"]
    pks = [file_pk(str(file_id)) for file_id in (ids if isinstance(ids, list) else [])]
    context.backend.files.delete(pks)
    return {"success": True}


def _run_by_id(context: RequestContext, storage_id: object) -> sqlite3.Row:
    run = context.backend.store.find_run_by_storage_id(str(storage_id))
    if run is None:
        raise not_found("run")
    return run


def _run_by_path(context: RequestContext, fields: Input) -> sqlite3.Row:
    path = (str(fields[key]) for key in ("entityName", "projectName", "runName"))
    run = context.backend.store.find_run(*path)
    if run is None:
        raise not_found("run")
    return run


def _refuse_read_only(run: sqlite3.Row) -> None:
    if run["read_only"]:
        raise GraphQLError("permission denied: the run is read-only")
