"""What was read of a run, with its rows on this machine: in memory, or in files."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from wb_ops.errors import CommError
from wb_ops.export.decide import PlannedRun
from wb_ops.tables.history import MergedHistory
from wb_ops.warehouse.base import StagedPart

if TYPE_CHECKING:
    import pyarrow as pa

# Two batches of numbers of 8 bytes, one that is committed and one that is read, and some for texts.
BYTES_PER_CELL = 20
# What the objects around the values of a column take, for each table that has it.
_BYTES_PER_COLUMN = 2_000


class Room:
    """Memory for rows that wait for their commit, by the cells of one; threads share it."""

    def __init__(self, max_cells: int) -> None:
        self._max_cells = max_cells
        self._free_bytes = BYTES_PER_CELL * max_cells
        self._lock = threading.Lock()

    def suits(self, cells: int) -> bool:
        """Whether a run is so small that others have room beside it.

        The rows of a long one are better all in files: the database needs memory of its own.
        """
        return cells <= self._max_cells

    def take(self, rows: pa.Table) -> bool:
        """Make room for rows, where there is any."""
        size = _size(rows)
        with self._lock:
            has_room = size <= self._free_bytes
            self._free_bytes -= size if has_room else 0
        return has_room

    def give_back(self, rows: pa.Table) -> None:
        """Let others have the room of these rows."""
        with self._lock:
            self._free_bytes += _size(rows)


def _size(rows: pa.Table) -> int:
    size: int = rows.nbytes + _BYTES_PER_COLUMN * rows.num_columns
    return size


class StagedRows:
    """Rows of one table, in a parquet file or in memory, until they are discarded."""

    def __init__(self, content: StagedPart, room: Room | None = None) -> None:
        self.content: StagedPart | None = content
        self._room = room

    @property
    def path(self) -> Path:
        """The file.

        Raises:
            TypeError: the rows are in memory, or discarded (a bug in what asks).
        """
        if not isinstance(self.content, Path):
            raise TypeError("these rows are in no file: what travels is staged without room")
        return self.content

    def discard(self) -> None:
        """Free the disk or memory that they take."""
        if isinstance(self.content, Path):
            self.content.unlink()
        elif self._room is not None and self.content is not None:
            self._room.give_back(self.content)
        self.content = None


@dataclass(frozen=True, slots=True)
class StagedHistory:
    """What was read of one history.

    `counts` has the counts of the read and an empty table: the rows are in the parts.
    `line_count` is the server's count when the read began. `has_overlap`: a step may have been
    read from two files. `tail_from`: only the rows from this step on were read.
    """

    counts: MergedHistory
    parts: tuple[StagedRows, ...]
    rows: int
    columns: frozenset[str]
    source: str
    has_overlap: bool
    size_bytes: int
    line_count: int
    tail_from: int | None = None


@dataclass(frozen=True, slots=True)
class StagedSystem:
    """What was read of one run's system metrics."""

    parts: tuple[StagedRows, ...]
    rows: int


@dataclass(frozen=True, slots=True)
class StagedRun:
    """What was read of one run, or the errors that kept it away."""

    planned: PlannedRun
    history: StagedHistory | None = None
    system: StagedSystem | None = None
    error: CommError | None = None
    system_error: CommError | None = None

    @property
    def run_id(self) -> str:
        """The run's id."""
        return self.planned.run_id

    @property
    def rows(self) -> int:
        """Staged history rows."""
        return 0 if self.history is None else self.history.rows

    @property
    def columns(self) -> frozenset[str]:
        """Columns of the staged history."""
        return frozenset() if self.history is None else self.history.columns
