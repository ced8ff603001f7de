"""Rows as GraphQL nodes: plain dicts whose leaves are ready for the wire."""

from __future__ import annotations

import base64
import json
import mimetypes
import sqlite3
from typing import TypeAlias
from urllib.parse import quote

from wb_ops.devserver.auth import ApiKey
from wb_ops.devserver.backend import RequestContext

Node: TypeAlias = dict[str, object]


def project_node(row: sqlite3.Row) -> Node:
    """A project; its runs are resolved field by field."""
    entity = {"id": _opaque("Entity", row["entity"]), "name": row["entity"]}
    return {
        "_row": row,
        "id": _opaque("Project", "v1", row["name"], row["entity"]),
        "internalId": str(row["pk"]),
        "name": row["name"],
        "entityName": row["entity"],
        "entity": entity,
        "createdAt": row["created_at"],
        "isBenchmark": False,
        "readOnly": False,
        "user": None if row["username"] is None else user_node(row["username"]),
    }


def run_node(row: sqlite3.Row, context: RequestContext) -> Node:
    """A run; history, files and the like are resolved field by field."""
    hides_user = row["username"] is None or "null_user" in context.quirks
    return {
        "_row": row,
        "id": row["storage_id"],
        "name": row["name"],
        "displayName": row["display_name"],
        "projectId": str(row["project_pk"]),
        "state": row["state"],
        "tags": json.loads(row["tags"]),
        "group": row["run_group"],
        "jobType": row["job_type"],
        "commit": row["commit_sha"],
        "repo": row["repo"],
        "host": row["host"],
        "program": row["program"],
        "sweepName": row["sweep"],
        "readOnly": bool(row["read_only"]),
        "stopped": bool(row["stopped"]),
        "createdAt": row["created_at"],
        "heartbeatAt": row["heartbeat_at"],
        "updatedAt": row["updated_at"],
        "description": row["description"],
        "notes": row["notes"],
        "config": row["config"],
        "summaryMetrics": row["summary"],
        "systemMetrics": row["system_metrics"],
        "user": None if hides_user else user_node(row["username"]),
        "historyLineCount": row["history_count"],
        "eventsLineCount": row["events_count"],
        "logLineCount": row["log_count"],
    }


def user_node(username: str) -> Node:
    """The creator of a run or project."""
    return {"id": _opaque("User", username), "name": username, "username": username}


def viewer_node(account: ApiKey) -> Node:
    """The account that asks."""
    entity = account.default_entity
    team = {"id": _opaque("Entity", entity), "name": entity}
    key = {"id": _opaque("ApiKey", account.username), "name": "dev", "description": None}
    return {
        **user_node(account.username),
        "email": f"{account.username}@example.com",
        "admin": False,
        "flags": "{}",
        "entity": entity,
        "deletedAt": None,
        "apiKeys": {"edges": [{"node": key}]},
        "teams": {"edges": [{"node": team}]},
    }


def file_node(
    context: RequestContext, run: sqlite3.Row, name: str, file: sqlite3.Row | None
) -> Node:
    """A file of a run; W&B gives an empty entry for a name that was never uploaded."""
    path = "/".join(quote(part) for part in (run["entity"], run["project"], run["name"], name))
    return {
        "id": _opaque("File", str(file["pk"]) if file else f"{run['name']}:{name}"),
        "name": name,
        "url": f"{context.backend.url}/files/{path}",
        "_uploadUrl": context.backend.signer.url("files", str(run["pk"]), name, verb="write"),
        "directUrl": context.backend.signer.url("files", str(run["pk"]), name),
        "sizeBytes": file["size_bytes"] if file else 0,
        "mimetype": mimetypes.guess_type(name)[0],
        "updatedAt": file["updated_at"] if file else None,
        "md5": file["md5"] if file else None,
    }


def file_pk(file_id: str) -> int:
    """The key of a file from its opaque id."""
    return int(base64.b64decode(file_id).decode().rpartition(":")[2])


def _opaque(*parts: str) -> str:
    return base64.b64encode(":".join(parts).encode()).decode()
