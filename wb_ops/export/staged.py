"""What was read of a run, with its rows on this machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from wb_ops.errors import CommError
from wb_ops.export.decide import PlannedRun
from wb_ops.tables.history import MergedHistory
from wb_ops.warehouse.base import StagedPart


@dataclass(slots=True)
class StagedRows:
    """Rows in a parquet file or in memory, until they are discarded."""

    part: StagedPart | None

    @property
    def path(self) -> Path:
        """The file."""
        assert isinstance(self.part, Path)  # noqa: S101 - what travels is staged in files
        return self.part

    def discard(self) -> None:
        """Free the disk or memory that they take."""
        if isinstance(self.part, Path):
            self.part.unlink()
        self.part = None


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
    """What was read of one run's system metrics; `path` is None where there are none."""

    path: Path | None
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
