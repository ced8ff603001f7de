"""What a load gave dlt, counted by run, and what of it the destination does not hold.

dlt stages rows in a dataset that all loads into one place share, truncate and merge from, each
table by itself. Two loads at a time, or one that is killed and continued later, can lose, double
or set back rows of a load that dlt calls finished. The receipts alone would not show that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from wb_ops.tables.schemas import TEXT, TableSchema

# Rows of a run are replaced together.
BY_RUN = ("runs", "runs_flat", "history", "history_long", "system_metrics")
ROWS = TableSchema(
    "_wb_rows",
    pa.schema(
        [
            pa.field("run_id", TEXT, nullable=False),
            pa.field("table_name", TEXT, nullable=False),
            pa.field("row_count", pa.int64()),
            pa.field("load_id", TEXT),
        ]
    ),
    ("run_id", "table_name"),
)

# The tables whose rows a receipt stands for.
_COVERED = {
    "runs": ("runs", "runs_flat"),
    "history": ("history", "history_long"),
    "system_metrics": ("system_metrics",),
}
# Other receipts say what was held before, or nothing.
_OF_ROWS = ("complete", "growing", "unexplained")
# In the place of a run's id stands the scope of a load, and the rows are its receipts.
_RECEIPTS = "_wb_receipts"
_BATCH_ROWS = 65_536

Found = Mapping[str, Mapping[str, Mapping[str, int]]]


def count_rows(files: Mapping[str, Sequence[str]], scope: str, load_id: str) -> pa.Table:
    """Count what a load has written, by run and table; no rows are counted as well."""
    counts: Counter[tuple[str, str]] = Counter({(scope, _RECEIPTS): 0})
    for batch in _batches_of(files, _RECEIPTS, ["run_id", "table_name", "status"], load_id):
        counts[scope, _RECEIPTS] += batch.num_rows
        for receipt in batch.to_pylist():
            if receipt["status"] in _OF_ROWS:
                covered = _COVERED[receipt["table_name"]]
                counts.update(dict.fromkeys(((receipt["run_id"], name) for name in covered), 0))
    for name in BY_RUN:
        for batch in _batches_of(files, name, ["run_id"], load_id):
            for found in batch["run_id"].value_counts().to_pylist():
                counts[found["values"], name] += found["counts"]
    rows = [
        {"run_id": run_id, "table_name": name, "row_count": count, "load_id": load_id}
        for (run_id, name), count in counts.items()
    ]
    return pa.Table.from_pylist(rows, schema=ROWS.schema)


def find_damaged(
    receipts: Iterable[Mapping[str, Any]], given: Iterable[Mapping[str, Any]], found: Found
) -> set[str]:
    """Give the runs of which the destination does not hold what their receipts stand for.

    Args:
        receipts, given: rows of `_wb_receipts` and `_wb_rows`.
        found: table -> run -> load -> rows that the destination holds.
    """
    loads = {(row["run_id"], row["table_name"]): row["load_id"] for row in given}
    damaged = {
        row["run_id"]
        for row in given
        if row["table_name"] in BY_RUN
        and not _is_held(row, found.get(row["table_name"], {}).get(row["run_id"], {}))
    }
    damaged |= {
        row["run_id"]
        for row in receipts
        if row["status"] in _OF_ROWS
        and any(
            loads.get((row["run_id"], name)) != row["load_id"]
            for name in _COVERED[row["table_name"]]
        )
    }
    return damaged


def is_whole(
    state: Mapping[str, Any], receipts: Iterable[Mapping[str, Any]], given: Iterable[Any]
) -> bool:
    """Whether all receipts of the load that moved a watermark are there: else it moved too far."""
    counts = {
        row["run_id"]: row["row_count"]
        for row in given
        if row["table_name"] == _RECEIPTS and row["load_id"] == state["load_id"]
    }
    held = sum(row["load_id"] == state["load_id"] for row in receipts)
    return bool(counts.get(state["scope"]) == held)


def _is_held(given: Mapping[str, Any], found: Mapping[str, int]) -> bool:
    if found.get(given["load_id"], 0) != given["row_count"]:
        return False
    # Where a load gave rows, its merge has deleted those of others.
    return not given["row_count"] or len(found) == 1


def _batches_of(
    files: Mapping[str, Sequence[str]], table_name: str, columns: Sequence[str], load_id: str
) -> Iterator[pa.RecordBatch]:
    for path in files.get(table_name, ()):
        with pq.ParquetFile(path) as file:
            mark = "load_id" if "load_id" in file.schema_arrow.names else "_load_id"
            for batch in file.iter_batches(_BATCH_ROWS, columns=[*columns, mark]):
                yield batch.filter(pc.equal(batch[mark], load_id))
