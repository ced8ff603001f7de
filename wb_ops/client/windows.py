"""Reads a run's rows by windows of steps, so that no window is ever down-sampled."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from dataclasses import dataclass
from itertools import compress, pairwise, starmap

import pyarrow as pa

from wb_ops.client.operations import HISTORY_PAGE
from wb_ops.client.paging import is_too_much, prefers_smaller
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
# The end of the search where the server does not know the last step.
UNKNOWN_END = 2**53


@dataclass(frozen=True, slots=True)
class Window:
    """The steps start <= `_step` < stop."""

    start: int
    stop: int

    def halves(self) -> tuple[Window, Window]:
        """Split in the middle."""
        middle = (self.start + self.stop) // 2
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
    first_step: int,
    last_step: int | None,
    line_count: int,
) -> Iterator[WindowRows]:
    """Yield the rows from `first_step` to `last_step`, window by window as they arrive.

    Windows are sized for `ROWS_PER_WINDOW` rows and read concurrently, a bounded number at a
    time; one that is too dense is halved. A gap of any size costs one request for each halving.

    Raises:
        MalformedResponse: more rows share one step than one answer can hold.
    """
    stop = UNKNOWN_END if last_step is None else last_step + 1
    waiting = _initial_windows(first_step, stop, line_count)
    halves: deque[Window] = deque()
    pending: dict[Future[WindowRows | None], Window] = {}
    try:
        while True:
            while len(pending) < WINDOWS_AHEAD and (
                window := halves.popleft() if halves else next(waiting, None)
            ):
                pending[pool.submit(_fetch, source, run_id, window)] = window
            if not pending:
                return
            done, _ = wait(pending, return_when=FIRST_COMPLETED)
            for future in done:
                window = pending.pop(future)
                answer = future.result()
                if answer is None:
                    halves.extend(window.halves())
                elif answer.rows:
                    yield answer
    finally:
        for future in pending:
            future.cancel()


def _initial_windows(start: int, stop: int, line_count: int) -> Iterator[Window]:
    if stop <= start:
        return
    count = max(1, min(math.ceil(line_count / ROWS_PER_WINDOW), stop - start))
    bounds = [start + (stop - start) * index // count for index in range(count + 1)]
    yield from starmap(Window, pairwise(bounds))


def _fetch(source: RunSource, run_id: str, window: Window) -> WindowRows | None:
    """Return the window's rows, or None if it must be halved."""
    operation = source.operation(
        "HistoryPage", HISTORY_PAGE, name=run_id, minStep=window.start, maxStep=window.stop,
        samples=SAMPLES,
    )  # fmt: skip
    can_halve = window.stop - window.start > 1
    try:
        fields = source.fetch_run_fields(operation, prefers_smaller if can_halve else None)
    except CommError as error:
        if can_halve and is_too_much(error):
            return None
        raise
    rows = fields.get("history") or []
    if len(rows) < SAMPLES:
        return _inside(window, rows)
    if can_halve:
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
    except ValueError as exc:
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
