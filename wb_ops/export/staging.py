"""One run's history on disk, in the canonical schema, before the warehouse is opened."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow.parquet as pq

from wb_ops.client.history import HistoryReader
from wb_ops.client.source import RunSource
from wb_ops.errors import CommError
from wb_ops.export.plan import PlannedRun
from wb_ops.tables.history import MergedHistory, history_batch, history_columns
from wb_ops.warehouse.base import staged_name


@dataclass(frozen=True, slots=True)
class StagedRun:
    """What was read of one run: its rows in `path`, or the error that kept them away.

    `history` has the counts of the read and an empty table: the rows are in the file.
    """

    planned: PlannedRun
    history: MergedHistory | None = None
    path: Path | None = None
    rows: int = 0
    cells: int = 0
    source: str | None = None
    size_bytes: int = 0
    error: CommError | None = None

    @property
    def run_id(self) -> str:
        """The run's id."""
        return self.planned.run_id


def stage_history(
    planned: PlannedRun, source: RunSource, reader: HistoryReader, folder: Path, load_id: str
) -> StagedRun:
    """Read one history and write it as parquet; one file a run.

    Raises:
        CommError: by the table in `errors`.
    """
    raw = reader.read(source, planned.run_id, planned.keys)
    merged = raw.merged()
    numeric, _ = history_columns(merged.table)
    names = {key: staged_name(key) for key in numeric}
    rows = history_batch(planned.run_id, merged.table, names, load_id)
    path = None
    if rows.num_rows:
        path = folder / f"{planned.run_id.encode().hex()}.parquet"
        pq.write_table(rows, path, compression="lz4")
    return StagedRun(
        planned=planned,
        history=replace(merged, table=merged.table.schema.empty_table()),
        path=path,
        rows=rows.num_rows,
        cells=rows.num_rows * rows.num_columns,
        source=raw.source,
        size_bytes=raw.size_bytes,
    )
