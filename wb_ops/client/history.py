"""Reads the whole history of a run: exported parquet files and live rows, never sampled.

W&B exports a run's rows to parquet files some time after they are logged. What is not exported
yet is "live" and is read by windows of steps.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import chain, pairwise
from tempfile import TemporaryFile
from typing import IO, Literal

import pyarrow as pa
import pyarrow.compute as pc

from wb_ops.client.parts import Piece, clusters, file_pieces, table_piece
from wb_ops.client.source import RunSource
from wb_ops.client.sources import (
    RUNS_PER_REQUEST,
    HistorySources,
    fetch_many_sources,
    fetch_sources,
)
from wb_ops.client.windows import read_windows
from wb_ops.errors import InvalidRequest, MalformedResponse, ServerUnavailable
from wb_ops.tables.history import MergedHistory, live_table, merge_parts, select_keys

log = logging.getLogger("wb_ops")

URL_ATTEMPTS = 3
Require = Literal["any", "all"]
# Columns that belong to a row whatever keys are asked for.
_OWN = ("_step", "_timestamp", "_runtime")


@dataclass(frozen=True, slots=True)
class Selection:
    """Which rows and columns of a history are wanted.

    `keys` None means all; else rows that hold any (or all: `require`) of the keys.
    `min_step` is included, `max_step` is not.
    """

    keys: tuple[str, ...] | None = None
    min_step: int | None = None
    max_step: int | None = None
    require: Require = "any"

    @property
    def columns(self) -> tuple[str, ...] | None:
        """The columns to read, or None for all."""
        return None if self.keys is None else (*_OWN, *self.keys)

    def touches(self, first_step: int, last_step: int) -> bool:
        """Whether any of these steps is wanted."""
        starts_late = self.max_step is not None and first_step >= self.max_step
        ends_early = self.min_step is not None and last_step < self.min_step
        return not (starts_late or ends_early)

    def within(self, table: pa.Table) -> pa.Table:
        """Keep the rows inside min_step..max_step."""
        step = pc.cast(table["_step"], pa.int64())
        if self.min_step is not None:
            table = table.filter(pc.greater_equal(step, self.min_step))
            step = pc.cast(table["_step"], pa.int64())
        return table if self.max_step is None else table.filter(pc.less(step, self.max_step))


@dataclass(frozen=True, slots=True)
class RawHistory:
    """One run's rows as they came, on this machine: files, and live rows in memory.

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

    def __enter__(self) -> RawHistory:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self.files:
            file.close()

    @property
    def has_overlap(self) -> bool:
        """Whether a step may be in two files, or in a file and in the live rows."""
        spans: dict[tuple[float, int], tuple[int, int]] = {}
        for piece in self.pieces:
            first, last = spans.get(piece.rank, (piece.first_step, piece.last_step))
            spans[piece.rank] = min(first, piece.first_step), max(last, piece.last_step)
        return any(one[1] >= other[0] for one, other in pairwise(sorted(spans.values())))

    def merged(self) -> MergedHistory:
        """Merge everything into one row a step; later values win per key.

        Raises:
            MalformedResponse: a row has no usable `_step` (retry: backoff).
        """
        return self._merge(self.pieces)

    def iter_merged(self) -> Iterator[MergedHistory]:
        """Merge group by group, in the order of steps; no step is in two groups.

        Memory holds one group: about 100,000 rows, more only where files overlap.

        Raises:
            MalformedResponse: a row has no usable `_step` (retry: backoff).
        """
        for group in clusters(self.pieces):
            yield self._merge(group)

    def select(self, table: pa.Table, *, own_columns: bool = False) -> pa.Table:
        """Apply the keys to a merged table; `own_columns` keeps `_timestamp` and `_runtime`."""
        keys = self.selection.keys
        if keys is None:
            return table
        selected = select_keys(table, keys, self.selection.require)
        if not own_columns:
            return selected
        kept = table.filter(pc.is_in(table["_step"], value_set=selected["_step"]))
        return select_keys(kept, (*_OWN[1:], *keys), "any")

    def _merge(self, pieces: Sequence[Piece]) -> MergedHistory:
        ordered = sorted(pieces, key=lambda piece: (piece.rank, piece.row_group))
        names = self.selection.columns
        try:
            tables = [self.selection.within(piece.read(names)) for piece in ordered]
            return merge_parts(tables, in_order=True)
        except (ValueError, OSError) as exc:
            raise MalformedResponse(f"The rows of {self.path} cannot be read: {exc}", exc) from exc


@dataclass(slots=True)
class HistoryReader:
    """Reads histories with a bounded number of threads; shared by all runs of an Api."""

    max_workers: int
    has_parquet: bool = True
    _executor: Executor | None = field(default=None, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def read(
        self,
        source: RunSource,
        run_id: str,
        selection: Selection = Selection(),
        sources: HistorySources | None = None,
    ) -> RawHistory:
        """Fetch the files and live rows of one history; one request, and one a file or window.

        `sources` saves the first request where the answer is known and fresh.

        Raises:
            CommError: NotFound for a run that is gone; else by the table in `errors`.
        """
        for _ in range(URL_ATTEMPTS):
            found = sources or self._sources(source, run_id)
            raw = self._read_once(source, run_id, selection, found)
            if raw is not None:
                return raw
            log.info("%s/%s: a signed URL has expired; asking again", source.path, run_id)
            sources = None
        raise ServerUnavailable(
            f"The storage refuses every signed URL for the history of {source.path}/{run_id}.",
            operation="download",
            path=f"{source.path}/{run_id}",
        )

    def sources_of(self, source: RunSource, run_ids: Sequence[str]) -> dict[str, HistorySources]:
        """Ask for the sources of many runs in few requests, where the server takes that."""
        if not self.has_parquet or len(run_ids) < 2:
            return {}
        found: dict[str, HistorySources] = {}
        for at in range(0, len(run_ids), RUNS_PER_REQUEST):
            found |= fetch_many_sources(source, run_ids[at : at + RUNS_PER_REQUEST])
        return found

    def close(self) -> None:
        """End the threads."""
        with self._lock:
            if self._executor is not None:
                self._executor.shutdown()
                self._executor = None

    def _pool(self) -> Executor:
        with self._lock:
            if self._executor is None:
                self._executor = ThreadPoolExecutor(self.max_workers, "wb_ops-history")
            return self._executor

    def _sources(self, source: RunSource, run_id: str) -> HistorySources:
        if self.has_parquet:
            try:
                return fetch_sources(source, run_id, has_parquet=True)
            except InvalidRequest as error:
                if "parquetHistory" not in error.message:
                    raise
                log.info("this server has no parquet exports; reading by windows of steps")
                self.has_parquet = False
        return fetch_sources(source, run_id, has_parquet=False)

    def _read_once(
        self, source: RunSource, run_id: str, selection: Selection, found: HistorySources
    ) -> RawHistory | None:
        """Read from these sources; None if a signed URL of them has expired."""
        with ExitStack() as opened:
            files = self._download(source, run_id, found.urls, opened)
            if files is None:
                return None
            live = self._live(source, run_id, selection, found)
            raw = _raw(f"{source.path}/{run_id}", files, live, selection, found)
            # From here on the history closes its files.
            opened.pop_all()
        return raw

    def _download(
        self, source: RunSource, run_id: str, urls: Sequence[str], opened: ExitStack
    ) -> list[IO[bytes]] | None:
        path = f"{source.path}/{run_id}"
        # Unlinked from the start: they are gone with this process, however that ends.
        files: list[IO[bytes]] = []
        for _ in urls:
            file = TemporaryFile(prefix="wb_ops-")  # noqa: SIM115 - `opened` closes it
            files.append(opened.enter_context(file))
        fetch = source.transport.download_to
        done = [
            self._pool().submit(fetch, file, url, path)
            for file, url in zip(files, urls, strict=True)
        ]
        # All of them have ended before a file is closed.
        wait(done)
        return files if all(future.result() for future in done) else None

    def _live(
        self, source: RunSource, run_id: str, selection: Selection, found: HistorySources
    ) -> list[str]:
        if found.first_live_step is None:
            return []
        first, last = found.first_live_step, found.last_step
        if selection.min_step is not None:
            first = max(first, selection.min_step)
        if selection.max_step is not None:
            last = min(selection.max_step - 1, selection.max_step if last is None else last)
        windows = read_windows(self._pool(), source, run_id, first, last, found.line_count)
        return list(chain.from_iterable(windows))


def _raw(
    path: str,
    files: Sequence[IO[bytes]],
    live: Sequence[str],
    selection: Selection,
    found: HistorySources,
) -> RawHistory:
    numbered = enumerate(files)
    pieces = [piece for number, file in numbered for piece in file_pieces(file, path, number)]
    size_bytes = sum(file.seek(0, 2) for file in files) + sum(map(len, live))
    if live:
        pieces.append(_live_piece(live, path))
    wanted = [piece for piece in pieces if selection.touches(piece.first_step, piece.last_step)]
    return RawHistory(
        path,
        tuple(wanted),
        selection,
        _name(found, live),
        size_bytes,
        found.line_count,
        tuple(files),
    )


def _live_piece(rows: Sequence[str], path: str) -> Piece:
    try:
        return table_piece(live_table(rows))
    except (ValueError, KeyError) as exc:
        raise MalformedResponse(f"The live rows of {path} cannot be read: {exc}", exc) from exc


def _name(found: HistorySources, live: Sequence[str]) -> str:
    if not found.urls:
        return "paged"
    return "parquet+live" if live else "parquet"


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
