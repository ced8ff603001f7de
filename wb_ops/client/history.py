"""Reads the whole history of a run: exported parquet files and live rows, never sampled.

W&B exports a run's rows to parquet files some time after they are logged. What is not exported
yet is "live" and is read by windows of steps.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import IO, TypeVar

from wb_ops.client.downloads import temporary_file
from wb_ops.client.exports import download_export, native_file
from wb_ops.client.live_rows import LiveRows
from wb_ops.client.parts import Piece, file_pieces, live_piece
from wb_ops.client.raw import RawHistory, adds_up, joined
from wb_ops.client.selection import EVERYTHING, Require, Selection
from wb_ops.client.source import RunSource
from wb_ops.client.sources import (
    RUNS_PER_REQUEST,
    HistorySources,
    fetch_many_sources,
    fetch_sources,
)
from wb_ops.client.windows import UNKNOWN_END, Window, read_windows
from wb_ops.errors import InvalidRequest, ServerUnavailable

__all__ = ["HistoryReader", "RawHistory", "Require", "Selection", "adds_up", "joined"]

log = logging.getLogger("wb_ops")

URL_ATTEMPTS = 3

T = TypeVar("T")


@dataclass(slots=True)
class HistoryReader:
    """Reads histories with a bounded number of threads; shared by all runs of an Api."""

    max_workers: int
    has_parquet: bool = True
    takes_many: bool = True
    _executor: Executor | None = field(default=None, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def read(
        self,
        source: RunSource,
        run_id: str,
        selection: Selection = EVERYTHING,
        sources: HistorySources | None = None,
    ) -> RawHistory:
        """Fetch the files and live rows of one history; one request, and one a file or window.

        `sources` saves the first request where the answer is known and fresh.

        Raises:
            CommError: NotFound for a run that is gone; else by the table in `errors`.
        """
        once = partial(self._read_once, source, run_id, selection)
        return self.with_urls(source, run_id, once, sources)

    def with_urls(
        self,
        source: RunSource,
        run_id: str,
        read: Callable[[HistorySources], T | None],
        sources: HistorySources | None = None,
    ) -> T:
        """Give `read` the sources of a run, and new ones while it says None: a URL has expired."""
        for _ in range(URL_ATTEMPTS):
            done = read(sources or self._sources(source, run_id))
            if done is not None:
                return done
            log.info("%s/%s: a signed URL has expired; asking again", source.path, run_id)
            sources = None
        raise ServerUnavailable(
            f"The storage refuses every signed URL for the history of {source.path}/{run_id}.",
            operation="download",
            path=f"{source.path}/{run_id}",
        )

    def sources_of(self, source: RunSource, run_ids: Sequence[str]) -> dict[str, HistorySources]:
        """Ask for the sources of many runs in few requests, where the server takes that.

        What is not in the answer is asked for run by run.
        """
        found: dict[str, HistorySources] = {}
        for at in range(0, len(run_ids), RUNS_PER_REQUEST):
            some = run_ids[at : at + RUNS_PER_REQUEST]
            if self.has_parquet and self.takes_many and len(some) > 1:
                answer = fetch_many_sources(source, some)
                self.takes_many = answer is not None
                found |= answer or {}
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
        path = f"{source.path}/{run_id}"
        with ExitStack() as opened:
            # Unlinked from the start: they are gone with this process, however that ends.
            files = [opened.enter_context(temporary_file()) for _ in found.urls]
            sizes = self.download(source, files, found.urls, path, selection.columns)
            if None in sizes:
                return None
            live = LiveRows()
            opened.callback(live.close)
            pieces = [
                piece
                for number, file in enumerate(files)
                for piece in file_pieces(native_file(file), path, number)
            ]
            pieces += self._live(live, source, run_id, selection, found)
            # From here on the history closes its files.
            opened.pop_all()
        return RawHistory(
            path,
            tuple(one for one in pieces if selection.touches(one.first_step, one.last_step)),
            selection,
            _name(found, live),
            sum(size or 0 for size in sizes) + live.size_bytes,
            found.line_count,
            tuple(files),
            live,
            found.last_step,
        )

    def download(
        self,
        source: RunSource,
        files: Sequence[IO[bytes]],
        urls: Sequence[str],
        path: str,
        names: Sequence[str] | None,
    ) -> list[int | None]:
        """Fill the files; gives the bytes of each, None for a URL that is refused."""
        pairs = list(zip(files, urls, strict=True))
        fetch = partial(download_export, source.transport, path=path, names=names)
        if len(pairs) == 1:
            return [fetch(*pairs[0])]
        done: list[Future[int | None]] = [self._pool().submit(fetch, *pair) for pair in pairs]
        try:
            return [future.result() for future in done]
        finally:
            # All of them have ended before a file is closed, also where this was interrupted.
            for future in done:
                future.cancel()
            wait(done)

    def _live(
        self,
        live: LiveRows,
        source: RunSource,
        run_id: str,
        selection: Selection,
        found: HistorySources,
    ) -> Iterator[Piece]:
        if found.first_live_step is None:
            return
        first, last = found.first_live_step, found.last_step
        if selection.min_step is not None:
            first = max(first, selection.min_step)
        stop = UNKNOWN_END if selection.max_step is None else selection.max_step
        if last is not None and found.live_rows is not None:
            stop = min(stop, last + 1)
        rows = found.line_count if found.live_rows is None else found.live_rows
        windows = read_windows(self._pool(), source, run_id, Window(first, stop), last, rows)
        for window in windows:
            part = live.add(window.rows, window.table)
            yield live_piece(part, window.steps, sum(map(len, window.rows)))


def _name(found: HistorySources, live: LiveRows) -> str:
    if not found.urls:
        return "paged"
    return "parquet+live" if live.size_bytes else "parquet"
