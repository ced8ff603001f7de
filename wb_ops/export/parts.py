"""Listed and planned runs as parquet: the rows of a plan, a file for each page of the listing."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from wb_ops.client.source import Node
from wb_ops.export.decide import PlannedRun
from wb_ops.export.folder import Folder

FOLDER = "runs/"

T = TypeVar("T")

_SCHEMA = pa.schema(
    [
        ("run_id", pa.string()),
        ("created_at", pa.string()),
        ("heartbeat_at", pa.string()),
        # null: the run was listed and nothing of it has to be written
        ("reason", pa.string()),
        ("reads_history", pa.bool_()),
        ("reads_system", pa.bool_()),
        ("keys", pa.list_(pa.string())),
        ("tail_from", pa.int64()),
        ("written_by", pa.string()),
        ("history_rows", pa.int64()),
        ("held", pa.string()),
        ("node", pa.string()),
    ]
)
_LISTED = ["run_id", "created_at", "heartbeat_at"]


@dataclass(frozen=True, slots=True)
class Listed:
    """One listed run, and what has to be done about it."""

    node: Node
    planned: PlannedRun | None


def write_part(folder: Folder, name: str, rows: Sequence[Listed], count: int) -> None:
    """Store one page; `count` is the server's count of the whole listing."""
    table = pa.Table.from_pylist([_row(row) for row in rows], schema=_SCHEMA)
    table = table.replace_schema_metadata({"count": str(count)})
    data = io.BytesIO()
    pq.write_table(table, data, compression="zstd")
    folder.write(f"{FOLDER}{name}.parquet", data.getvalue())


def read_listed(folder: Folder) -> tuple[list[dict[str, Any]], int]:
    """The listed runs of all pages, without what is planned for them, and the server's count."""
    rows: list[dict[str, Any]] = []
    count = 0
    for file in _files(folder):
        rows += file.read(_LISTED).to_pylist()
        count = max(count, int((file.schema_arrow.metadata or {}).get(b"count", b"0")))
    return rows, count


def read_weights(folder: Folder) -> dict[str, int]:
    """The runs whose rows are read from W&B: run id -> how many history rows, about."""
    columns = ["run_id", "reads_history", "reads_system", "history_rows"]
    return {
        row["run_id"]: row["history_rows"]
        for file in _files(folder)
        for row in file.read(columns).to_pylist()
        if row["reads_history"] or row["reads_system"]
    }


def read_planned(folder: Folder, wanted: set[str] | None = None) -> Iterator[PlannedRun]:
    """Yield the planned runs, each id once; memory holds a page."""
    seen: set[str] = set()
    chosen = None if wanted is None else pa.array(wanted, pa.string())
    for file in _files(folder):
        table = file.read()
        table = table.filter(table["reason"].is_valid())
        if chosen is not None:
            table = table.filter(pc.is_in(table["run_id"], value_set=chosen))
        for row in table.to_pylist():
            if row["run_id"] not in seen:
                seen.add(row["run_id"])
                yield _planned(row)


def _files(folder: Folder) -> Iterator[pq.ParquetFile]:
    for name in folder.list_names():
        if name.startswith(FOLDER) and (data := folder.read(name)) is not None:
            yield pq.ParquetFile(pa.BufferReader(data))


def _row(listed: Listed) -> dict[str, Any]:
    node, planned = listed.node, listed.planned
    row = {
        "run_id": node["name"],
        "created_at": node.get("createdAt"),
        "heartbeat_at": node.get("heartbeatAt"),
    }
    if planned is None:
        return row
    return row | {
        "reason": planned.reason,
        "reads_history": planned.reads_history,
        "reads_system": planned.reads_system,
        "keys": None if planned.keys is None else list(planned.keys),
        "tail_from": planned.tail_from,
        "written_by": planned.written_by,
        "history_rows": planned.history_rows,
        "held": None if planned.held is None else json.dumps(dict(planned.held), default=str),
        "node": json.dumps(planned.node),
    }


def _planned(row: dict[str, Any]) -> PlannedRun:
    return PlannedRun(
        node=json.loads(row["node"]),
        reason=row["reason"],
        reads_history=row["reads_history"],
        reads_system=row["reads_system"],
        keys=None if row["keys"] is None else tuple(row["keys"]),
        tail_from=row["tail_from"],
        held=None if row["held"] is None else json.loads(row["held"]),
        written_by=row["written_by"],
    )


def chunked(rows: Iterable[T], size: int) -> Iterator[list[T]]:
    """Group rows into lists of at most `size`."""
    chunk: list[T] = []
    for row in rows:
        chunk.append(row)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
