"""Batches as an export makes them, from plain Python values."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from wb_ops.tables.columns import Column
from wb_ops.tables.history import history_batch, history_columns
from wb_ops.tables.runs import runs_table
from wb_ops.tables.schemas import (
    LOADS,
    RECEIPTS,
    RUNS_FLAT,
    SCHEMA_VERSION,
    STATE,
    SYSTEM_METRICS,
)
from wb_ops.tables.values import escape_text
from wb_ops.warehouse import Batch, Owner, Warehouse
from wb_ops.warehouse.base import StagedPart, staged_name, staged_text

OWNER = Owner("ann", "trials")
DATASET = "ann__trials"


class Batches:
    """Makes batches; every other history, from the first one on, is staged in memory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files = 0
        self.histories = 0

    def batch(
        self,
        histories: Mapping[str, Mapping[str, Sequence[Any]]] | None = None,
        *,
        dataset: str = DATASET,
        owner: Owner = OWNER,
        load_id: str = "load-1",
        first_step: int = 0,
        nodes: Mapping[str, Mapping[str, Any]] | None = None,
        **more: Any,
    ) -> Batch:
        """A batch that replaces these histories (run id -> key -> values)."""
        histories = histories or {}
        nodes = nodes if nodes is not None else {run_id: {} for run_id in histories}
        runs = runs_table(
            [{"name": run_id, "state": "finished", **node} for run_id, node in nodes.items()],
            entity=owner.entity, project=owner.project, load_id=load_id,
        )  # fmt: skip
        settings: dict[str, Any] = {
            "history": [
                self.history(run_id, metrics, first_step, load_id)
                for run_id, metrics in histories.items()
            ],
            "replaced": list(histories),
            "meta": meta(owner, load_id, histories),
        }
        return Batch(dataset, owner, load_id, runs, **(settings | more))

    def history(
        self,
        run_id: str,
        metrics: Mapping[str, Sequence[Any]],
        first_step: int = 0,
        load_id: str = "load-1",
    ) -> StagedPart:
        """Stage the rows of one run."""
        count = len(next(iter(metrics.values())))
        steps = pa.array(range(first_step, first_step + count), pa.int64())
        keyed = {escape_text(key)[0]: _column(values) for key, values in metrics.items()}
        fields = [column.field(key) for key, column in keyed.items()]
        schema = pa.schema([pa.field("_step", pa.int64()), *fields])
        table = pa.table([steps, *(column.data for column in keyed.values())], schema=schema)
        numeric, _ = history_columns(table)
        names = {key: staged_name(key) for key in numeric}
        rows = history_batch(run_id, table, names, load_id)
        self.histories += 1
        return rows if self.histories % 2 else self.staged(rows)

    def system_metrics(self, run_id: str, values: Mapping[str, float]) -> Path:
        """Stage one sample of each metric."""
        rows = [
            {"run_id": run_id, "timestamp": 0, "key": key, "value": value, "sampled": True}
            for key, value in values.items()
        ]
        return self.staged(pa.Table.from_pylist(rows, schema=SYSTEM_METRICS))

    def staged(self, table: pa.Table) -> Path:
        """Write one staged file."""
        self.files += 1
        path = self.folder / f"staged-{self.files}.parquet"
        pq.write_table(table, path, compression="lz4")
        return path


def _column(values: Sequence[Any]) -> Column:
    """Values of one kind as Arrow has them; of several kinds as JSON cells."""
    kinds = {type(value) for value in values if value is not None}
    if len(kinds) < 2:
        return Column(pa.chunked_array([pa.array(values)]))
    cells = [None if value is None else json.dumps(value) for value in values]
    return Column(pa.chunked_array([pa.array(cells, pa.string())]), is_json=True)


def flat(rows: Mapping[str, Mapping[str, float | str]], load_id: str = "load-1") -> pa.Table:
    """Rows of runs_flat: run id -> leaf -> value."""
    staged: dict[str, dict[str, float | str]] = {}
    for run_id, leaves in rows.items():
        for key, value in leaves.items():
            column = (staged_text if isinstance(value, str) else staged_name)(key)
            staged.setdefault(column, {})[run_id] = value
    columns = {
        column: pa.array(
            [values.get(run_id) for run_id in rows],
            pa.string() if column.startswith("text:") else pa.float64(),
        )
        for column, values in staged.items()
    }
    fields = [
        RUNS_FLAT.field("run_id"),
        *(pa.field(name, column.type) for name, column in columns.items()),
        RUNS_FLAT.field("_load_id"),
    ]
    ends = [pa.array(list(rows), pa.string()), pa.array([load_id] * len(rows), pa.string())]
    return pa.table([ends[0], *columns.values(), ends[1]], schema=pa.schema(fields))


def meta(owner: Owner, load_id: str, histories: Mapping[str, Any]) -> dict[str, pa.Table]:
    """Receipts, load and state, as an export commits them with the rows."""
    counts = {run_id: len(next(iter(metrics.values()))) for run_id, metrics in histories.items()}
    receipts = [
        {
            "run_id": run_id, "table_name": "history", "status": "complete", "rows_read": count,
            "distinct_steps": count, "first_step": 0, "last_step": count - 1,
            "server_rows": count, "server_last_step": count - 1, "load_id": load_id,
        }
        for run_id, count in counts.items()
    ]  # fmt: skip
    state = {
        "scope": "s", "entity": owner.entity, "project": owner.project, "load_id": load_id,
        "schema_version": SCHEMA_VERSION,
    }  # fmt: skip
    return {
        "_wb_receipts": pa.Table.from_pylist(receipts, schema=RECEIPTS),
        "_wb_loads": pa.Table.from_pylist([{"load_id": load_id}], schema=LOADS),
        "_wb_state": pa.Table.from_pylist([state], schema=STATE),
    }


def rows(warehouse: Warehouse, sql: str, dataset: str | None = DATASET) -> list[tuple[Any, ...]]:
    """What a SELECT gives, as tuples."""
    columns = [column.to_pylist() for column in warehouse.query(sql, dataset).columns]
    return list(zip(*columns, strict=True))


def names_of(warehouse: Warehouse, table: str, dataset: str = DATASET) -> dict[str, str]:
    """Original key -> column of a table."""
    columns = warehouse.read_tables(dataset, ["_wb_columns"])["_wb_columns"].to_pylist()
    return {
        row["original_key"]: row["column_name"] for row in columns if row["table_name"] == table
    }
