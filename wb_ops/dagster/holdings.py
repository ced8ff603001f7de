"""What the warehouse holds of the runs that a step was asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg

from wb_ops.dagster.metadata import Metadata
from wb_ops.dagster.partitions import Slice

if TYPE_CHECKING:
    from wb_ops.warehouse import Warehouse

_RUNS = """
    select run_id, created_at, status from runs
    left join (select run_id, status from _wb_receipts where table_name = 'history') as receipts
    using (run_id) where {condition}
"""
_ROWS = """
    select run_id, count(*) as row_count from {table}
    where run_id in (select run_id from runs where {condition}) group by run_id
"""


def add_partition_metadata(
    context: dg.AssetExecutionContext,
    part: Slice,
    warehouse: Warehouse,
    dataset: str,
    keys: Mapping[str, dg.AssetKey],
) -> None:
    """Describe each partition by itself: what a result carries is copied to all of them.

    `keys` is table -> asset. One query for each, which reads the ids of these runs only.
    """
    partitions = part.split(read_runs(warehouse, dataset, part))
    for table, asset_key in keys.items():
        counted = {} if table == "runs" else _counts(warehouse, dataset, table, part)
        for partition_key, runs in partitions.items():
            rows = len(runs) if table == "runs" else sum(counted.get(r["run_id"], 0) for r in runs)
            metadata = _metadata(rows, runs)
            context.add_asset_metadata(metadata, asset_key=asset_key, partition_key=partition_key)


def read_runs(warehouse: Warehouse, dataset: str, part: Slice) -> list[dict[str, Any]]:
    """Return run_id, created_at and status (of the history's receipt) of the partitions' runs."""
    return _query(warehouse, dataset, _RUNS, part)


def _counts(warehouse: Warehouse, dataset: str, table: str, part: Slice) -> dict[str, int]:
    """run_id -> rows, for the runs of the partitions."""
    rows = _query(warehouse, dataset, _ROWS, part, table=table)
    return {row["run_id"]: row["row_count"] for row in rows}


def _query(
    warehouse: Warehouse, dataset: str, sql: str, part: Slice, **names: str
) -> list[dict[str, Any]]:
    text = sql.format(condition=part.condition, **names)
    rows: list[dict[str, Any]] = warehouse.query(text, dataset).to_pylist()
    return rows


def _metadata(rows: int, runs: Sequence[Mapping[str, Any]]) -> Metadata:
    statuses = Counter(str(run["status"]) for run in runs)
    return {
        "dagster/partition_row_count": rows,
        "wandb/partition_runs": len(runs),
        "wandb/partition_statuses": dg.MetadataValue.json(dict(sorted(statuses.items()))),
    }
