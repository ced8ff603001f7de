"""Reads many runs at once. One run's trouble stays with it; what concerns all stops all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import islice

from wb_ops.client.sources import HistorySources
from wb_ops.errors import RequestTimeout, ServerUnavailable
from wb_ops.export.decide import PlannedRun
from wb_ops.export.staged import StagedRun
from wb_ops.export.staging import Stager
from wb_ops.tables.runs import read_history_keys

MAX_FAILURES_IN_A_ROW = 10


def by_key_set(runs: Sequence[PlannedRun]) -> list[PlannedRun]:
    """Put runs that log the same metrics side by side: a batch of them has few columns."""
    return sorted(runs, key=lambda run: _key_set(run.node.get("historyKeys")))


def _key_set(history_keys: object) -> tuple[str, ...]:
    keys = (read_history_keys(history_keys) or {}).get("keys")
    return tuple(sorted(map(str, keys))) if isinstance(keys, Mapping | list) else ()


@dataclass(slots=True)
class ConcurrentReader:
    """Stages runs with `workers` threads, a few of them under way at a time."""

    stager: Stager
    workers: int
    failures_in_a_row: int = 0

    def iter_staged(self, runs: Sequence[PlannedRun]) -> Iterator[StagedRun]:
        """Yield runs as they are read, in no certain order.

        Raises:
            CommError: AuthenticationFailed, RateLimited and ConnectionFailed of any run; what the
                server says to ten runs in a row.
        """
        waiting = iter(runs)
        with ThreadPoolExecutor(self.workers, "wb_ops-export") as pool:
            pending: set[Future[StagedRun]] = set()
            try:
                while True:
                    # Few are under way at a time, so that finished ones do not pile up.
                    # Refilled in strokes: the sources of several runs come in one request.
                    room = 2 * self.workers - len(pending) if len(pending) <= self.workers else 0
                    for run, sources in self._with_sources(list(islice(waiting, room))):
                        pending.add(pool.submit(self.stager.stage, run, sources))
                    if not pending:
                        return
                    done, pending = wait(pending, return_when=FIRST_COMPLETED)
                    # Those that succeeded first: they are kept whatever the others raise.
                    for future in sorted(done, key=lambda one: one.exception() is not None):
                        yield self._checked(future.result())
            finally:
                pool.shutdown(cancel_futures=True)
                # What is raised holds this frame, and with it rows that nobody takes.
                pending.clear()

    def _checked(self, staged: StagedRun) -> StagedRun:
        """Stop where the server, not a run, is the trouble: nothing but failures for a while."""
        error = staged.error
        is_down = isinstance(error, ServerUnavailable | RequestTimeout)
        self.failures_in_a_row = self.failures_in_a_row + 1 if is_down else 0
        if error is not None and self.failures_in_a_row >= MAX_FAILURES_IN_A_ROW:
            raise error
        return staged

    def _with_sources(
        self, runs: Sequence[PlannedRun]
    ) -> list[tuple[PlannedRun, HistorySources | None]]:
        """Where the rows of these runs are, asked for together."""
        wanted = [run.run_id for run in runs if run.reads_history]
        found = self.stager.reader.sources_of(self.stager.source, wanted)
        return [(run, found.get(run.run_id)) for run in runs]
