"""Reads a run's rows by windows of steps, so that no window is ever down-sampled."""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from dataclasses import dataclass
from itertools import pairwise, starmap

from wb_ops.client.operations import HISTORY_PAGE
from wb_ops.client.source import RunSource
from wb_ops.errors import MalformedResponse, RequestTimeout, ServerUnavailable
from wb_ops.tables.values import parse_json

# A window is asked for with more samples than it should hold; an answer that is full may have
# been down-sampled and is read again in halves.
ROWS_PER_WINDOW = 4_000
SAMPLES = 5_000
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


def read_windows(
    pool: Executor,
    source: RunSource,
    run_id: str,
    first_step: int,
    last_step: int | None,
    line_count: int,
) -> Iterator[list[str]]:
    """Yield the rows (JSON texts) from `first_step` to `last_step`, window by window in order.

    Windows are sized for `ROWS_PER_WINDOW` rows and read concurrently; one that is too dense
    is halved. A gap of any size costs one request for each halving.

    Raises:
        MalformedResponse: more rows share one step than one answer can hold.
    """
    stop = UNKNOWN_END if last_step is None else last_step + 1
    rows: dict[Window, list[str]] = {}
    pending = {
        pool.submit(_fetch, source, run_id, window): window
        for window in _initial_windows(first_step, stop, line_count)
    }
    try:
        while pending:
            done, _ = wait(pending, return_when=FIRST_COMPLETED)
            for future in done:
                window = pending.pop(future)
                if (answer := future.result()) is not None:
                    rows[window] = answer
                    continue
                for half in window.halves():
                    pending[pool.submit(_fetch, source, run_id, half)] = half
    finally:
        _cancel(pending)
    for window in sorted(rows, key=lambda window: window.start):
        yield rows[window]


def _initial_windows(start: int, stop: int, line_count: int) -> Iterator[Window]:
    if stop <= start:
        return
    count = max(1, min(math.ceil(line_count / ROWS_PER_WINDOW), stop - start))
    bounds = [start + (stop - start) * index // count for index in range(count + 1)]
    yield from starmap(Window, pairwise(bounds))


def _fetch(source: RunSource, run_id: str, window: Window) -> list[str] | None:
    """Return the window's rows, or None if it must be halved."""
    operation = source.operation(
        "HistoryPage", HISTORY_PAGE, name=run_id, minStep=window.start, maxStep=window.stop,
        samples=SAMPLES,
    )  # fmt: skip
    can_halve = window.stop - window.start > 1
    try:
        rows = source.fetch_run_fields(operation).get("history") or []
    except (RequestTimeout, ServerUnavailable) as error:
        if can_halve and error.http_status in (None, 200, 408, 500, 504):
            return None
        raise
    if len(rows) < SAMPLES:
        return [row for row in rows if window.start <= _step(row) < window.stop]
    if can_halve:
        return None
    raise MalformedResponse(
        f"Run {source.path}/{run_id} has {SAMPLES} or more rows at step {window.start}: "
        "the server would only send a sample of them."
    )


def _step(row: str) -> int:
    try:
        parsed = parse_json(row)
    except ValueError as exc:
        raise MalformedResponse("A history row is no JSON.", exc) from exc
    step = parsed.get("_step") if isinstance(parsed, dict) else None
    if not isinstance(step, int | float):
        raise MalformedResponse("A history row has no _step.")
    return int(step)


def _cancel(pending: dict[Future[list[str] | None], Window]) -> None:
    for future in pending:
        future.cancel()
