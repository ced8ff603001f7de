"""One run's history on disk, in the canonical schema, before the warehouse is opened."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path

import pyarrow.parquet as pq

from wb_ops.client.history import HistoryReader, RawHistory, Selection, joined
from wb_ops.client.source import RunSource
from wb_ops.client.sources import HistorySources
from wb_ops.errors import CommError
from wb_ops.export.plan import PlannedRun
from wb_ops.tables.history import MergedHistory, history_batch, history_columns, merge_parts
from wb_ops.warehouse.base import staged_name


@dataclass(frozen=True, slots=True)
class StagedRun:
    """What was read of one run: its rows in `paths`, or the error that kept them away.

    `history` has the counts of the read and an empty table: the rows are in the files.
    `has_overlap`: a step may have been read from two files.
    """

    planned: PlannedRun
    history: MergedHistory | None = None
    paths: tuple[Path, ...] = ()
    rows: int = 0
    cells: int = 0
    source: str | None = None
    has_overlap: bool = False
    size_bytes: int = 0
    error: CommError | None = None

    @property
    def run_id(self) -> str:
        """The run's id."""
        return self.planned.run_id


def stage_history(
    planned: PlannedRun,
    source: RunSource,
    reader: HistoryReader,
    folder: Path,
    load_id: str,
    sources: HistorySources | None,
) -> StagedRun:
    """Read one history and write it as parquet, group by group; memory holds one group.

    Raises:
        CommError: by the table in `errors`.
    """
    counts = [merge_parts([])]
    paths: list[Path] = []
    rows = cells = 0
    with reader.read(source, planned.run_id, Selection(planned.keys), sources) as raw:
        for index, merged in enumerate(raw.iter_merged()):
            counts.append(replace(merged, table=merged.table.schema.empty_table()))
            path = folder / f"{planned.run_id.encode().hex()}-{index}.parquet"
            written, width = _write(planned.run_id, raw, merged, path, load_id)
            rows, cells = rows + written, cells + written * width
            paths += [path] if written else []
    return StagedRun(
        planned=planned,
        history=reduce(joined, counts),
        paths=tuple(paths),
        rows=rows,
        cells=cells,
        source=raw.source,
        has_overlap=raw.has_overlap,
        size_bytes=raw.size_bytes,
    )


def _write(
    run_id: str, raw: RawHistory, merged: MergedHistory, path: Path, load_id: str
) -> tuple[int, int]:
    """Write one group; returns (rows, columns)."""
    table = raw.select(merged.table, own_columns=True)
    numeric, _ = history_columns(table)
    batch = history_batch(run_id, table, {key: staged_name(key) for key in numeric}, load_id)
    if batch.num_rows:
        pq.write_table(batch, path, compression="lz4")
    return batch.num_rows, batch.num_columns
