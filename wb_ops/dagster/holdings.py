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

_HELD = """
    with chosen as (select run_id, created_at from runs where {condition}),
    counted as (
        select run_id, count(*) as history_rows from history
        where run_id in (select run_id from chosen) group by run_id
    ),
    receipts as (select run_id, status from _wb_receipts where table_name = 'history')
    select chosen.run_id, chosen.created_at, receipts.status,
        coalesce(counted.history_rows, 0) as history_rows
    from chosen left join counted using (run_id) left join receipts using (run_id)
"""


def add_partition_metadata(
    context: dg.AssetExecutionContext,
    part: Slice,
    warehouse: Warehouse,
    dataset: str,
    keys: Mapping[str, dg.AssetKey],
) -> None:
    """Describe each partition by itself: what a result carries is copied to all of them.

    `keys` is table -> asset. One query, which reads the ids of these runs only.
    """
    held = warehouse.query(_HELD.format(condition=part.condition), dataset).to_pylist()
    for partition_key, runs in part.split(held).items():
        for table, asset_key in keys.items():
            metadata = _metadata(table, runs)
            context.add_asset_metadata(metadata, asset_key=asset_key, partition_key=partition_key)


def _metadata(table: str, runs: Sequence[Mapping[str, Any]]) -> Metadata:
    rows = len(runs) if table == "runs" else sum(run["history_rows"] for run in runs)
    statuses = Counter(str(run["status"]) for run in runs)
    return {
        "dagster/partition_row_count": rows,
        "wandb/partition_runs": len(runs),
        "wandb/partition_statuses": dg.MetadataValue.json(dict(sorted(statuses.items()))),
    }
