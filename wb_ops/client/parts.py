"""Exported history files on this machine, cut into pieces that can be read one by one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import IO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from wb_ops.errors import MalformedResponse

# Small pieces are merged together up to about this many rows.
ROWS_PER_MERGE = 100_000


@dataclass(frozen=True, slots=True)
class Piece:
    """Rows of one history whose steps lie in first_step..last_step; read when asked for.

    A piece is a row group of a file, or a table that is in memory already (live rows). Of the
    values of one step that of the highest `rank` counts: files by their first step, then live
    rows; within a file its row groups in order.
    """

    first_step: int
    last_step: int
    rows: int
    rank: tuple[float, int] = (float("inf"), 0)
    table: pa.Table | None = None
    file: pq.ParquetFile | None = field(default=None, repr=False)
    row_group: int = 0

    def read(self, names: Sequence[str] | None) -> pa.Table:
        """Read the piece, of its columns those in `names` (None: all)."""
        if self.table is not None:
            return self.table
        assert self.file is not None  # noqa: S101 - a piece has one or the other
        held = self.file.schema_arrow.names
        chosen = None if names is None else [name for name in held if name in set(names)]
        return self.file.read_row_group(self.row_group, columns=chosen)


def file_pieces(content: IO[bytes], path: str, number: int = 0) -> list[Piece]:
    """Cut a downloaded parquet file, the `number`th of its run, into its row groups.

    Raises:
        MalformedResponse: it is not a whole parquet file, or has no `_step` (retry: backoff).
    """
    try:
        file = pq.ParquetFile(content)
        groups = range(file.metadata.num_row_groups)
        pieces = [piece for group in groups if (piece := _row_group(file, group)) is not None]
    except (pa.ArrowException, OSError, KeyError) as exc:
        raise MalformedResponse(
            f"An export of the history of {path} is not a whole parquet file with _step.", exc
        ) from exc
    first_step = min((piece.first_step for piece in pieces), default=0)
    return [replace(piece, rank=(first_step, number)) for piece in pieces]


def table_piece(table: pa.Table) -> Piece:
    """A piece of rows that are in memory; the table has a column `_step` and a row."""
    bounds = pc.min_max(pc.cast(table["_step"], pa.int64())).as_py()
    return Piece(bounds["min"], bounds["max"], table.num_rows, table=table)


def clusters(pieces: Iterable[Piece]) -> Iterator[list[Piece]]:
    """Group pieces so that no step is in two groups; groups come in the order of their steps.

    Only pieces of one group need merging, so that a history of any length is held in memory
    group by group. Small groups are joined.
    """
    group: list[Piece] = []
    for piece in sorted(pieces, key=lambda piece: (piece.first_step, piece.last_step)):
        ends = max((one.last_step for one in group), default=piece.first_step)
        is_apart = piece.first_step > ends
        if group and is_apart and sum(one.rows for one in group) >= ROWS_PER_MERGE:
            yield group
            group = []
        group.append(piece)
    if group:
        yield group


def _row_group(file: pq.ParquetFile, group: int) -> Piece | None:
    rows = file.metadata.row_group(group).num_rows
    if rows == 0:
        return None
    bounds = _statistics(file, group) or _read_bounds(file, group)
    return Piece(int(bounds[0]), int(bounds[1]), rows, file=file, row_group=group)


def _statistics(file: pq.ParquetFile, group: int) -> tuple[float, float] | None:
    metadata = file.metadata.row_group(group)
    columns = (metadata.column(index) for index in range(metadata.num_columns))
    steps = next((column for column in columns if column.path_in_schema == "_step"), None)
    if steps is None:
        raise KeyError("_step")
    statistics = steps.statistics
    if statistics is None or not statistics.has_min_max or statistics.null_count:
        return None
    return statistics.min, statistics.max


def _read_bounds(file: pq.ParquetFile, group: int) -> tuple[float, float]:
    steps = file.read_row_group(group, columns=["_step"])["_step"]
    if steps.null_count:
        raise pa.ArrowInvalid("a row without _step")
    bounds = pc.min_max(steps).as_py()
    return bounds["min"], bounds["max"]
