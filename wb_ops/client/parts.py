"""Exported history files on this machine, cut into pieces that can be read one by one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import IO, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from wb_ops.errors import MalformedResponse

# Small pieces are merged together up to about this many rows, or cells where rows are wide.
ROWS_PER_MERGE = 100_000
CELLS_PER_MERGE = 4_000_000
# Text of a live row that weighs as much as a cell of a column.
CHARS_PER_CELL = 4


@dataclass(frozen=True, slots=True)
class Piece:
    """Rows of one history whose steps lie in first_step..last_step; read when asked for.

    A piece is a row group of a file or a chunk of live rows, the `part`th. Of the values of one
    step that of the highest `rank` counts: files by their first step, then live rows; within a
    file or the live rows the parts in order. `cells` is about what it takes in memory, `places`
    the number of each column in the file.
    """

    first_step: int
    last_step: int
    rows: int
    cells: int
    part: int = 0
    rank: tuple[float, int] = (float("inf"), 0)
    file: pq.ParquetFile | None = field(default=None, repr=False)
    places: Mapping[str, int] = field(default_factory=dict, repr=False)

    @property
    def is_live(self) -> bool:
        """Whether it is a chunk of live rows."""
        return self.file is None

    def read(self, names: Sequence[str] | None) -> pa.Table:
        """Read a row group, of its columns those in `names` (None: all)."""
        return self._file.read_row_group(self.part, columns=self._chosen(names))

    def iter_tables(self, names: Sequence[str] | None) -> Iterator[pa.Table]:
        """Read a row group, in slices where it is large and its steps increase strictly."""
        most_rows = self._rows_per_slice(names)
        if self.rows <= 2 * most_rows or not self._is_increasing():
            yield self.read(names)
            return
        chosen = self._chosen(names)
        for batch in self._file.iter_batches(most_rows, row_groups=[self.part], columns=chosen):
            # A batch knows nothing of the marks in the schema.
            table = pa.Table.from_batches([batch])
            yield table.replace_schema_metadata(self._file.schema_arrow.metadata)

    def field(self, name: str) -> pa.Field:
        """Describe a column of the row group."""
        return self._file.schema_arrow.field(name)

    def bounds(self, name: str) -> tuple[Any, Any] | None:
        """The lowest and highest value of a column, where the file says."""
        return _statistics(self._file, self.part, self.places[name])

    def column_names(self, names: Sequence[str] | None) -> list[str]:
        """The columns of the row group that are in `names` (None: all)."""
        held: list[str] = self._file.schema_arrow.names
        if names is None:
            return held
        wanted = set(names)
        return [name for name in held if name in wanted]

    @property
    def _file(self) -> pq.ParquetFile:
        assert self.file is not None  # noqa: S101 - live rows are read where they are kept
        return self.file

    def _chosen(self, names: Sequence[str] | None) -> list[str] | None:
        return None if names is None else self.column_names(names)

    def _rows_per_slice(self, names: Sequence[str] | None) -> int:
        return min(ROWS_PER_MERGE, CELLS_PER_MERGE // max(1, len(self.column_names(names))))

    def _is_increasing(self) -> bool:
        steps = self.read(["_step"])["_step"].to_numpy()
        return bool((steps[1:] > steps[:-1]).all())


def file_pieces(content: IO[bytes] | pa.NativeFile, path: str, number: int = 0) -> list[Piece]:
    """Cut a downloaded parquet file, the `number`th of its run, into its row groups.

    Raises:
        MalformedResponse: it is not a whole parquet file, or has no `_step` (retry: backoff).
    """
    try:
        file = pq.ParquetFile(content)
        columns = range(file.metadata.num_columns)
        places = {file.schema.column(index).path: index for index in columns}
        groups = range(file.metadata.num_row_groups)
        pieces = [piece for group in groups if (piece := _row_group(file, group, places))]
    except (pa.ArrowException, OSError, KeyError, ValueError, OverflowError) as exc:
        raise MalformedResponse(
            f"An export of the history of {path} is not a whole parquet file with steps.", exc
        ) from exc
    first_step = min((piece.first_step for piece in pieces), default=0)
    return [replace(piece, rank=(first_step, number)) for piece in pieces]


def live_piece(part: int, steps: Sequence[int], size_bytes: int) -> Piece:
    """A chunk of live rows, the `part`th: the steps of its rows, and the size of their JSON."""
    return Piece(min(steps), max(steps), len(steps), size_bytes // CHARS_PER_CELL, part)


def clusters(pieces: Iterable[Piece]) -> Iterator[list[Piece]]:
    """Group pieces so that no step is in two groups; groups come in the order of their steps.

    Only pieces of one group need merging, so that a history of any length is held in memory
    group by group. Small groups are joined.
    """
    group: list[Piece] = []
    for piece in sorted(pieces, key=lambda piece: (piece.first_step, piece.last_step)):
        ends = max((one.last_step for one in group), default=piece.first_step)
        is_apart = piece.first_step > ends
        if group and is_apart and _is_enough(group):
            yield group
            group = []
        group.append(piece)
    if group:
        yield group


def _is_enough(group: Sequence[Piece]) -> bool:
    rows = sum(piece.rows for piece in group)
    return rows >= ROWS_PER_MERGE or sum(piece.cells for piece in group) >= CELLS_PER_MERGE


def _row_group(file: pq.ParquetFile, group: int, places: Mapping[str, int]) -> Piece | None:
    rows = file.metadata.row_group(group).num_rows
    if rows == 0:
        return None
    known = _statistics(file, group, places["_step"], may_be_null=False)
    first, last = known or _read_bounds(file, group)
    cells = rows * file.metadata.num_columns
    return Piece(int(first), int(last), rows, cells, group, file=file, places=places)


def _statistics(
    file: pq.ParquetFile, group: int, column: int, *, may_be_null: bool = True
) -> tuple[Any, Any] | None:
    statistics = file.metadata.row_group(group).column(column).statistics
    if statistics is None or not statistics.has_min_max:
        return None
    if statistics.null_count and not may_be_null:
        return None
    return statistics.min, statistics.max


def _read_bounds(file: pq.ParquetFile, group: int) -> tuple[float, float]:
    steps = file.read_row_group(group, columns=["_step"])["_step"]
    if steps.null_count:
        raise pa.ArrowInvalid("a row without _step")
    bounds = pc.min_max(steps).as_py()
    return bounds["min"], bounds["max"]
