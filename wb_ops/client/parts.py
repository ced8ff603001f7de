"""Exported history files on this machine, cut into pieces that can be read one by one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import IO, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from wb_ops.errors import InvalidRequest, MalformedResponse

# Small pieces are merged together up to about this many rows, or cells where rows are wide.
ROWS_PER_MERGE = 100_000
CELLS_PER_MERGE = 4_000_000
# A row group that must be in memory as a whole may hold so many; a file of a few bytes can declare
# any number of rows.
MAX_CELLS_AT_ONCE = 500_000_000
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
        """Read a row group, of its columns those in `names` (None: all).

        Raises:
            InvalidRequest: it is too large to be in memory at once (retry: never).
        """
        cells = self.rows * len(self.column_names(names))
        if cells > MAX_CELLS_AT_ONCE:
            raise InvalidRequest(
                f"A row group of an exported history declares {cells:,} values, more than the "
                f"{MAX_CELLS_AT_ONCE:,} that are read at once: ask for fewer keys."
            )
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
        last: Any = None
        for steps in _iter_steps(self._file, self.part):
            values = steps.to_numpy(zero_copy_only=False)
            if last is not None and not values[0] > last:
                return False
            if not (values[1:] > values[:-1]).all():
                return False
            last = values[-1]
        return True


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
    lows, highs = [], []
    for steps in _iter_steps(file, group):
        if steps.null_count:
            raise pa.ArrowInvalid("a row without _step")
        bounds = pc.min_max(steps).as_py()
        lows.append(bounds["min"])
        highs.append(bounds["max"])
    return min(lows), max(highs)


def _iter_steps(file: pq.ParquetFile, group: int) -> Iterator[pa.Array]:
    """The steps of a row group bit by bit: what it declares need not fit into memory."""
    for batch in file.iter_batches(ROWS_PER_MERGE, row_groups=[group], columns=["_step"]):
        yield batch.column(0)
