"""What a load gave dlt, counted by run, and what of it the destination does not hold.

dlt stages rows in a dataset that all loads into one place share, truncate and merge from, each
table by itself. Two loads at a time, or one that was cut, can lose, double or set back rows of a
load that dlt calls finished; the receipts alone would not show that. The counts are appended, so
no other load can take them away: what they say was given must be there.

Loads are ordered by numbers that they give themselves: their ids are times of clocks that differ.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from wb_ops.tables.schemas import INT, TEXT, TableSchema

# Rows of a run are replaced together.
BY_RUN = ("runs", "runs_flat", "history", "history_long", "system_metrics")
ROW_COUNTS = TableSchema(
    "_wb_rows",
    pa.schema(
        [
            pa.field("run_id", TEXT, nullable=False),
            pa.field("table_name", TEXT, nullable=False),
            pa.field("row_count", INT, nullable=False),
            pa.field("load_id", TEXT, nullable=False),
            pa.field("load_number", INT, nullable=False),
        ]
    ),
    ("run_id", "table_name", "load_id"),
)

# The tables whose rows a receipt stands for.
COVERED = {
    "runs": ("runs", "runs_flat"),
    "history": ("history", "history_long"),
    "system_metrics": ("system_metrics",),
}
_BATCH_ROWS = 65_536

# A run and a table.
Key = tuple[str, str]
# Where a load stands among the others: its number, and its id beside those of the same number.
Place = tuple[int, str]
# Load -> rows, of each key.
Counts = Mapping[Key, Mapping[str, int]]


def order_loads(
    finished: AbstractSet[str], numbers: Mapping[str, int]
) -> tuple[dict[str, Place], int]:
    """Give each load its place, and the number of the next one.

    A load without a number has that of the loads before it, by their ids.
    """
    places: dict[str, Place] = {}
    before = 0
    for load_id in sorted({*finished, *numbers}):
        places[load_id] = (numbers.get(load_id, before), load_id)
        before = max(before, places[load_id][0])
    return places, 1 + max((places[load_id][0] for load_id in finished), default=0)


def count_rows(
    files: Mapping[str, Sequence[str]], tables: Collection[str], load_id: str, load_number: int
) -> pa.Table:
    """Count what a load has written into `tables`, by run and table: rows of `_wb_rows`.

    Each receipt has a row, if only to say that it was given: 0 where its rows were left alone.
    """
    counts: Counter[Key] = Counter()
    for batch in _batches_of(files, "_wb_receipts", ("run_id", "table_name"), load_id):
        names = zip(batch["run_id"].to_pylist(), batch["table_name"].to_pylist(), strict=True)
        counts.update(dict.fromkeys(names, 0))
    for name in (one for one in BY_RUN if one in tables):
        for batch in _batches_of(files, name, ("run_id",), load_id):
            for found in batch["run_id"].value_counts().to_pylist():
                counts[found["values"], name] += found["counts"]
    rows = [
        {"run_id": run_id, "table_name": name, "row_count": count}
        | {"load_id": load_id, "load_number": load_number}
        for (run_id, name), count in counts.items()
    ]
    return pa.Table.from_pylist(rows, schema=ROW_COUNTS.schema)


def find_damaged(
    given: Mapping[Key, tuple[str, int]],
    receipts: Counts,
    found: Counts,
    uncounted: AbstractSet[str],
    places: Mapping[str, Place],
) -> set[Key]:
    """Give the receipts, by run and table, that the destination does not hold as they were given.

    Args:
        given: the newest load that gave a run's rows of a table, and how many.
        receipts: what `_wb_receipts` holds.
        found: what the tables of rows hold.
        uncounted: finished loads that left no counts: of earlier versions, or without the tables
            that tell; they are trusted.
        places: which load is newer than another.
    """
    damaged = set()
    for key in {*receipts, *(key for key in given if key[1] in COVERED)}:
        loads = receipts.get(key, {})
        load_id = given[key][0] if key in given else ""
        newest = max(loads, key=lambda one: place_of(one, places), default="")
        if newest in uncounted and place_of(newest, places) > place_of(load_id, places):
            continue
        if loads != {load_id: 1} or not _is_held(key, load_id, given, found):
            damaged.add(key)
    return damaged


def place_of(load_id: str | None, places: Mapping[str, Place]) -> Place:
    """Give a load its place; one that nobody knows of is older than all."""
    return places.get(load_id or "", (-1, load_id or ""))


def _is_held(key: Key, load_id: str, given: Mapping[Key, tuple[str, int]], found: Counts) -> bool:
    for name in COVERED[key[1]]:
        by, rows = given.get((key[0], name), ("", 0))
        # Where a load gave no rows, its merge has deleted none: those of others may be there.
        if by == load_id and rows and found.get((key[0], name)) != {load_id: rows}:
            return False
    return True


def _batches_of(
    files: Mapping[str, Sequence[str]], table_name: str, columns: Sequence[str], load_id: str
) -> Iterator[pa.RecordBatch]:
    mark = "_load_id" if table_name in BY_RUN else "load_id"
    for path in files.get(table_name, ()):
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(_BATCH_ROWS, columns=[*columns, mark]):
                yield batch.filter(pc.equal(batch[mark], load_id))
