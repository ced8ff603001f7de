"""One run's rows as they came, on this machine: merged as a whole, or group by group."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, pairwise
from typing import IO

import pyarrow as pa
import pyarrow.compute as pc

from wb_ops.client.live_rows import LiveRows
from wb_ops.client.parts import Piece, clusters
from wb_ops.client.selection import Selection
from wb_ops.errors import MalformedResponse
from wb_ops.tables.history import OWN_COLUMNS, MergedHistory, live_table, merge_parts, select_keys


@dataclass(frozen=True, slots=True)
class RawHistory:
    """One run's rows as they came, on this machine: files, and live rows.

    Use it as a context manager: its end removes the files. `source` is parquet, parquet+live,
    or paged (windows of steps only). `line_count` is the server's count when it was asked.
    """

    path: str
    pieces: tuple[Piece, ...]
    selection: Selection
    source: str
    size_bytes: int
    line_count: int = 0
    files: tuple[IO[bytes], ...] = field(default=(), repr=False)
    live: LiveRows | None = field(default=None, repr=False)

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
        """
        return self.merge(self.pieces)

    def iter_merged(self) -> Iterator[MergedHistory]:
        """Merge group by group, in the order of steps; no step is in two groups.

        Memory holds one group: about 100,000 rows, fewer where they are wide, more only where
        files overlap or a large row group is not in the order of its steps.

        Raises:
            MalformedResponse: a row has no usable `_step` (retry: backoff).
        """
        for group in self.groups():
            if len(group) == 1 and group[0].live is None:
                yield from self._slices(group[0])
            else:
                yield self.merge(group)

    def merge(self, pieces: Sequence[Piece]) -> MergedHistory:
        """Merge some pieces into one row a step."""
        names = self.selection.columns
        ordered = sorted(pieces, key=_order)
        try:
            tables = [piece.read(names) for piece in ordered if piece.live is None]
            live = list(chain.from_iterable(p.read_live() for p in ordered if p.live is not None))
            if live:
                tables.append(live_table(live))
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
    return piece.rank, piece.part if piece.live is None else piece.first_step


def joined(one: MergedHistory, other: MergedHistory) -> MergedHistory:
    """Add up the counts of two groups of one history; the table is the first one's."""
    firsts = [step for step in (one.first_step, other.first_step) if step is not None]
    lasts = [step for step in (one.last_step, other.last_step) if step is not None]
    return replace(
        one,
        rows_read=one.rows_read + other.rows_read,
        distinct_steps=one.distinct_steps + other.distinct_steps,
        overwritten_cells=one.overwritten_cells + other.overwritten_cells,
        first_step=min(firsts, default=None),
        last_step=max(lasts, default=None),
    )
