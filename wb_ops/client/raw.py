"""One run's rows as they came, on this machine: merged as a whole, or group by group."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import IO

import pyarrow as pa
import pyarrow.compute as pc

from wb_ops.client.live_rows import LiveRows
from wb_ops.client.parts import Piece, clusters
from wb_ops.client.selection import Selection
from wb_ops.errors import IncompleteHistory, MalformedResponse
from wb_ops.tables.history import OWN_COLUMNS, MergedHistory, merge_parts, select_keys


@dataclass(frozen=True, slots=True)
class RawHistory:
    """One run's rows as they came, on this machine: files, and live rows.

    Use it as a context manager: its end removes the files. `source` is parquet, parquet+live,
    or paged (windows of steps only). `line_count` and `server_last_step` are what the server said
    when it was asked for the sources. With `requires_complete`, rows that do not add up to that are
    an error once all are merged; of some steps only (`Selection.is_whole`) nobody can tell.
    """

    path: str
    pieces: tuple[Piece, ...]
    selection: Selection
    source: str
    size_bytes: int
    line_count: int = 0
    files: tuple[IO[bytes], ...] = field(default=(), repr=False)
    live: LiveRows | None = field(default=None, repr=False)
    server_last_step: int | None = None
    requires_complete: bool = False

    def __enter__(self) -> RawHistory:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove the files."""
        for file in self.files:
            file.close()
        if self.live is not None:
            self.live.close()

    @property
    def has_overlap(self) -> bool:
        """Whether a step may be in two files, or in a file and in the live rows."""
        spans: dict[tuple[float, int], tuple[int, int]] = {}
        for piece in self.pieces:
            first, last = spans.get(piece.rank, (piece.first_step, piece.last_step))
            spans[piece.rank] = min(first, piece.first_step), max(last, piece.last_step)
        return any(one[1] >= other[0] for one, other in pairwise(sorted(spans.values())))

    def groups(self) -> list[list[Piece]]:
        """The pieces that are merged together, in the order of steps; no step is in two groups."""
        return list(clusters(self.pieces))

    def merged(self) -> MergedHistory:
        """Merge everything into one row a step; later values win per key.

        Raises:
            MalformedResponse: a row has no usable `_step` (retry: backoff).
            IncompleteHistory: with `requires_complete`, rows are missing (retry: backoff).
        """
        merged = self.merge(self.pieces)
        self._check(merged)
        return merged

    def iter_merged(self) -> Iterator[MergedHistory]:
        """Merge group by group, in the order of steps; no step is in two groups.

        Memory holds one group: about 100,000 rows, fewer where they are wide, more only where
        files overlap or a large row group is not in the order of its steps.

        Raises:
            MalformedResponse: a row has no usable `_step` (retry: backoff).
            IncompleteHistory: with `requires_complete`, rows are missing; told after the last
                group (retry: backoff).
        """
        counts = merge_parts([])
        for group in self.groups():
            is_file = len(group) == 1 and not group[0].is_live
            for merged in self._slices(group[0]) if is_file else [self.merge(group)]:
                counts = joined(counts, merged)
                yield merged
        self._check(counts)

    def merge(self, pieces: Sequence[Piece]) -> MergedHistory:
        """Merge some pieces into one row a step."""
        names = self.selection.columns
        ordered = sorted(pieces, key=_order)
        try:
            tables = [piece.read(names) for piece in ordered if not piece.is_live]
            chunks = [piece.part for piece in ordered if piece.is_live]
            if self.live is not None and chunks:
                tables += self.live.tables(chunks)
            return merge_parts([self.selection.within(one) for one in tables], in_order=True)
        except (ValueError, OSError) as exc:
            raise self._unreadable(exc) from exc

    def select(self, table: pa.Table, *, own_columns: bool = False) -> pa.Table:
        """Apply the keys to a merged table; `own_columns` keeps `_timestamp` and `_runtime`."""
        keys = self.selection.keys
        if keys is None:
            return table
        selected = select_keys(table, keys, self.selection.require)
        if not own_columns:
            return selected
        kept = table.filter(pc.is_in(table["_step"], value_set=selected["_step"]))
        return select_keys(kept, (*OWN_COLUMNS[1:], *keys), "any")

    def _check(self, counts: MergedHistory) -> None:
        if not self.requires_complete or not self.selection.is_whole:
            return
        if not adds_up(counts, self.line_count, has_overlap=self.has_overlap):
            raise IncompleteHistory(
                f"Run {self.path}: {counts.rows_read} rows read, the server counts "
                f"{self.line_count}. Rows that were logged a short time ago may not be served yet.",
                path=self.path,
            )
        # What was logged while the rows were read may come after the server's last step.
        if counts.last_step is not None and counts.last_step < (self.server_last_step or 0):
            raise IncompleteHistory(
                f"Run {self.path}: the rows end at step {counts.last_step}, the server says "
                f"{self.server_last_step}.",
                path=self.path,
            )

    def _slices(self, piece: Piece) -> Iterator[MergedHistory]:
        try:
            for table in piece.iter_tables(self.selection.columns):
                yield merge_parts([self.selection.within(table)], in_order=True)
        except (ValueError, OSError) as exc:
            raise self._unreadable(exc) from exc

    def _unreadable(self, exc: Exception) -> MalformedResponse:
        return MalformedResponse(f"The rows of {self.path} cannot be read: {exc}", exc)


def _order(piece: Piece) -> tuple[tuple[float, int], int]:
    # Windows of live rows arrive in any order; no step is in two of them.
    return piece.rank, piece.first_step if piece.is_live else piece.part


def joined(one: MergedHistory, other: MergedHistory) -> MergedHistory:
    """Add up the counts of two groups of one history; the table is the first one's."""
    firsts = [step for step in (one.first_step, other.first_step) if step is not None]
    lasts = [step for step in (one.last_step, other.last_step) if step is not None]
    return replace(
        one,
        rows_read=one.rows_read + other.rows_read,
        repeated_rows=one.repeated_rows + other.repeated_rows,
        distinct_steps=one.distinct_steps + other.distinct_steps,
        overwritten_cells=one.overwritten_cells + other.overwritten_cells,
        first_step=min(firsts, default=None),
        last_step=max(lasts, default=None),
    )


def adds_up(counts: MergedHistory, line_count: int, *, has_overlap: bool) -> bool:
    """Whether the rows of a whole history are as many as the server counts lines.

    A step that was logged twice counts as two lines; a row that two files hold does not, and read
    twice it could hide one that is missing. Rows that were logged differ at least in their
    `_timestamp`.
    """
    rows = counts.rows_read - (counts.repeated_rows if has_overlap else 0)
    return line_count in (counts.distinct_steps, rows)
