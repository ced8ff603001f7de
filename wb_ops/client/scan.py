"""Histories of many runs at once, as Arrow streams, in the order in which they are ready."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from itertools import groupby, islice
from typing import TYPE_CHECKING

from wb_ops.client.selection import Selection
from wb_ops.client.sources import RUNS_PER_REQUEST, HistorySources
from wb_ops.client.stream import read_stream
from wb_ops.errors import (
    AuthenticationFailed,
    CommError,
    InvalidRequest,
    PermissionDenied,
    RateLimited,
)

if TYPE_CHECKING:
    import pyarrow as pa

    from wb_ops.client.history import HistoryReader
    from wb_ops.client.run import Run

MAX_ROWS_IN_FLIGHT = 5_000_000

log = logging.getLogger("wb_ops")

OnError = Callable[["Run", CommError], None]
# Not the matter of one run: the next one would end alike.
_STOPS_ALL = (AuthenticationFailed, PermissionDenied, RateLimited)


@dataclass(slots=True)
class HistoryScan:
    """Reads histories ahead of the one who takes them, within a bound of rows.

    A run counts with its rows from the start of its download until the next one is asked for.
    """

    reader: HistoryReader
    selection: Selection
    max_rows: int
    on_error: OnError | None
    rows_in_flight: int = 0
    _known: deque[tuple[Run, HistorySources | None]] = field(default_factory=deque)
    _asking: Future[list[tuple[Run, HistorySources | None]]] | None = None
    _reading: dict[Future[pa.RecordBatchReader], Run] = field(default_factory=dict)

    def iter_streams(self, runs: Iterable[Run]) -> Iterator[tuple[Run, pa.RecordBatchReader]]:
        """Yield each run and its stream as it is ready."""
        waiting = iter(runs)
        pool = ThreadPoolExecutor(self.reader.max_workers, "wb_ops-scan")
        try:
            while self._start(pool, waiting):
                self._await_one()
                for future in [one for one in self._reading if one.done()]:
                    run = self._reading.pop(future)
                    stream = self._stream(run, future)
                    if stream is not None:
                        yield run, stream
                    self.rows_in_flight -= self._weight(run)
        finally:
            pool.shutdown(cancel_futures=True)
            for future in self._reading:
                if not future.cancelled() and future.exception() is None:
                    future.result().close()

    def _start(self, pool: ThreadPoolExecutor, waiting: Iterator[Run]) -> bool:
        """Start what the bound allows; whether anything is under way."""
        while self._known and self._may_start(self._known[0][0]):
            run, sources = self._known.popleft()
            self.rows_in_flight += self._weight(run)
            self._reading[pool.submit(self._read, run, sources)] = run
        if self._asking is None and len(self._known) < RUNS_PER_REQUEST:
            some = list(islice(waiting, RUNS_PER_REQUEST))
            # Signed URLs expire: they are asked for one chunk ahead, not more.
            self._asking = pool.submit(self._ask, some) if some else None
        return bool(self._reading or self._asking or self._known)

    def _await_one(self) -> None:
        asking = [] if self._asking is None else [self._asking]
        wait([*self._reading, *asking], return_when=FIRST_COMPLETED)
        if self._asking is not None and self._asking.done():
            self._known.extend(self._asking.result())
            self._asking = None

    def _may_start(self, run: Run) -> bool:
        is_busy = len(self._reading) >= 2 * self.reader.max_workers
        fits = self.rows_in_flight + self._weight(run) <= self.max_rows
        return not is_busy and (fits or not self._reading)

    def _weight(self, run: Run) -> int:
        return min(self.max_rows, max(1, run.history_line_count))

    def _ask(self, runs: list[Run]) -> list[tuple[Run, HistorySources | None]]:
        """Where the rows of these runs are, asked for together."""
        known: list[tuple[Run, HistorySources | None]] = []
        for source, some in groupby(runs, key=lambda run: run._source):
            chosen = list(some)
            found = self.reader.sources_of(source, [run.id for run in chosen])
            known += [(run, found.get(run.id)) for run in chosen]
        return known

    def _read(self, run: Run, sources: HistorySources | None) -> pa.RecordBatchReader:
        raw = self.reader.read(run._source, run.id, self.selection, sources)
        try:
            return read_stream(raw)
        except BaseException:
            raw.close()
            raise

    def _stream(
        self, run: Run, future: Future[pa.RecordBatchReader]
    ) -> pa.RecordBatchReader | None:
        try:
            return future.result()
        except CommError as error:
            if self.on_error is None or isinstance(error, _STOPS_ALL):
                raise
            log.warning("the history of %s cannot be read: %s", "/".join(run.path), error)
            self.on_error(run, error)
            return None


def scan_histories(
    reader: HistoryReader,
    runs: Iterable[Run],
    selection: Selection,
    max_rows_in_flight: int = MAX_ROWS_IN_FLIGHT,
    on_error: OnError | None = None,
) -> Iterator[tuple[Run, pa.RecordBatchReader]]:
    """Yield (run, stream of its history) in the order in which they are ready; see `Api`."""
    if max_rows_in_flight < 1:
        raise InvalidRequest(f"max_rows_in_flight={max_rows_in_flight}: give at least 1.")
    scan = HistoryScan(reader, selection, max_rows_in_flight, on_error)
    return scan.iter_streams(runs)
