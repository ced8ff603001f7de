"""What a training process streams to ``file_stream``."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping

from wb_ops.devserver.backend import Backend
from wb_ops.devserver.errors import StatusError
from wb_ops.devserver.jsontext import Json, to_text
from wb_ops.devserver.wire_time import now_text

_STREAMS = {"wandb-events.jsonl": "events", "output.log": "log"}


def ingest(backend: Backend, run: sqlite3.Row, message: Mapping[str, Json]) -> dict[str, Json]:
    """Take in one message: lines with offsets, summary, heartbeat, and the end of the run.

    Offsets are line numbers, so a message that arrives twice changes nothing. ``complete`` ends the
    run; any other message revives it.
    """
    pk = int(run["pk"])
    with backend.database.transaction():
        for name, chunk in _objects(message.get("files")):
            _write_chunk(backend, pk, name, chunk)
        now = now_text()
        backend.store.update_run(
            pk, {"heartbeat_at": now, "updated_at": now, "state": _next_state(message)}
        )
    return {"stopped": True} if run["stopped"] else {}


def _objects(document: Json) -> list[tuple[str, dict[str, Json]]]:
    if document is None:
        return []
    if not isinstance(document, dict):
        raise StatusError(400, "files is no object")
    return [(name, chunk) for name, chunk in document.items() if isinstance(chunk, dict)]


def _write_chunk(backend: Backend, run_pk: int, name: str, chunk: dict[str, Json]) -> None:
    offset, content = chunk.get("offset", 0), chunk.get("content")
    if not isinstance(offset, int) or not isinstance(content, list):
        raise StatusError(400, f"{name}: offset or content is missing")
    lines = [to_text(line) for line in content]
    if name == "wandb-history.jsonl":
        backend.lines.write_history(run_pk, offset, lines)
    elif name == "wandb-summary.json" and lines:
        backend.store.update_run(run_pk, {"summary": lines[-1]})
    elif name in _STREAMS:
        backend.lines.write_stream(run_pk, _STREAMS[name], offset, lines)


def _next_state(message: Mapping[str, Json]) -> str:
    if message.get("complete"):
        return "finished" if message.get("exitcode") in (0, None) else "failed"
    return "preempting" if message.get("preempting") else "running"
