"""Reads a run's rows by windows of steps, so that no window is ever down-sampled."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from dataclasses import dataclass
from itertools import compress, pairwise, starmap

import pyarrow as pa

from wb_ops.client.operations import HISTORY_PAGE
from wb_ops.client.paging import MAX_HALVING_S, is_too_much, prefers_smaller
from wb_ops.client.responses import listed
from wb_ops.client.source import RunSource
from wb_ops.errors import CommError, MalformedResponse
from wb_ops.tables.plain_rows import read_plain, read_steps
from wb_ops.tables.values import parse_lines, row_step

# A window is asked for with more samples than it should hold; an answer that is full may have
# been down-sampled and is read again in halves.
ROWS_PER_WINDOW = 4_000
SAMPLES = 5_000
# Windows that are asked for or wait to be taken, so that a long history is not held in memory.
WINDOWS_AHEAD = 32
# The end of the search where the server may not know the last step.
UNKNOWN_END = 2**53


@dataclass(frozen=True, slots=True)
class Window:
    """The steps start <= `_step` < stop; `middle` is where to split, if not in the middle."""

    start: int
    stop: int
    middle: int | None = None

    @property
    def can_halve(self) -> bool:
        """Whether it holds more than one step."""
        return self.stop - self.start > 1

    def halves(self) -> tuple[Window, Window]:
        """Split in two."""
        middle = self.middle or (self.start + self.stop) // 2
        return Window(self.start, middle), Window(middle, self.stop)


@dataclass(frozen=True, slots=True)
class WindowRows:
    """The rows (JSON texts) of a window in the server's order, and their steps.

    `table` is what `read_plain` makes of the rows, None where they are not plain.
    """

    rows: list[str]
    steps: list[int]
    table: pa.Table | None


def read_windows(
    pool: Executor,
    source: RunSource,
    run_id: str,
    wanted: Window,
    last_step: int | None,
    line_count: int,
) -> Iterator[WindowRows]:
    """Yield the rows of the wanted steps, window by window as they arrive.

    Windows are sized for `ROWS_PER_WINDOW` rows and read concurrently, a bounded number at a time;
    what is wanted after `last_step` goes with the last one. There is one where nobody knows the
    end: cut evenly, all rows would be in the first of many. A window that is too dense, or too
    much for the server, is halved. A gap of any size costs one request for each halving.

    Raises:
        MalformedResponse: more rows share one step than one answer can hold.
        CommError: by the table in `errors`; also where windows were halved for `MAX_HALVING_S`
            seconds and the server could answer for none of them.
    """
    waiting = _initial_windows(wanted, last_step, line_count)
    # The last one first: a server that fails everywhere is found out at a single step, after as
    # many requests as there are halvings, not after one for every step.
    halves: list[Window] = []
    pending: dict[Future[WindowRows | None], Window] = {}
    deadline = time.monotonic() + MAX_HALVING_S
    try:
        while True:
            while len(pending) < WINDOWS_AHEAD and (
                window := halves.pop() if halves else next(waiting, None)
            ):
                pending[pool.submit(_fetch, source, run_id, window)] = window
            if not pending:
                return
            done, _ = wait(pending, return_when=FIRST_COMPLETED)
            for future in done:
                window = pending.pop(future)
                try:
                    answer = future.result()
                except CommError as error:
                    is_late = time.monotonic() > deadline
                    if is_late or not (window.can_halve and is_too_much(error)):
                        raise
                    halves.extend(window.halves())
                    continue
                if answer is None:
                    halves.extend(window.halves())
                elif answer.rows:
                    yield answer
                deadline = time.monotonic() + MAX_HALVING_S
    finally:
        for future in pending:
            future.cancel()


def _initial_windows(wanted: Window, last_step: int | None, line_count: int) -> Iterator[Window]:
    start = wanted.start
    known = wanted.stop if last_step is None else min(last_step + 1, wanted.stop)
    if known <= start:
        known = wanted.stop
    if known <= start:
        return
    full = 1 if known >= UNKNOWN_END else math.ceil(line_count / ROWS_PER_WINDOW)
    count = max(1, min(full, known - start))
    bounds = [start + (known - start) * index // count for index in range(count + 1)]
    yield from starmap(Window, pairwise(bounds[:-1]))
    middle = known if known < wanted.stop else None
    yield Window(bounds[-2], wanted.stop, middle)


def _fetch(source: RunSource, run_id: str, window: Window) -> WindowRows | None:
    """Return the window's rows, or None if it is too dense and must be halved."""
    operation = source.operation(
        "HistoryPage", HISTORY_PAGE, name=run_id, minStep=window.start, maxStep=window.stop,
        samples=SAMPLES,
    )  # fmt: skip
    fields = source.fetch_run_fields(operation, prefers_smaller if window.can_halve else None)
    rows = listed(fields, "history")
    if len(rows) < SAMPLES:
        return _inside(window, rows)
    if window.can_halve:
        return None
    raise MalformedResponse(
        f"Run {source.path}/{run_id} has {SAMPLES} or more rows at step {window.start}: "
        "the server would only send a sample of them."
    )


def _inside(window: Window, rows: list[str]) -> WindowRows:
    try:
        # Arrow reads the rows here, where several threads do so at once, and not again.
        table = read_plain(rows)
        steps = _plain_steps(table) or read_steps(rows) or [_step(row) for row in parse_lines(rows)]
    except (TypeError, ValueError) as exc:
        raise MalformedResponse("A history row is no JSON.", exc) from exc
    if not steps or (window.start <= min(steps) and max(steps) < window.stop):
        return WindowRows(rows, steps, table)
    is_inside = [window.start <= step < window.stop for step in steps]
    return WindowRows([*compress(rows, is_inside)], [*compress(steps, is_inside)], None)


def _plain_steps(table: pa.Table | None) -> list[int] | None:
    if table is None or "_step" not in table.column_names:
        return None
    steps = table["_step"]
    if steps.null_count or not pa.types.is_int64(steps.type):
        return None
    listed: list[int] = steps.to_numpy().tolist()
    return listed


def _step(row: object) -> int:
    step = row_step(row)
    if step is None:
        raise MalformedResponse("A history row has no _step.")
    return step
