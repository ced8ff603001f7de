"""Runs of which many are worked on: the sources of twenty histories come in one request."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from wb_ops.client.history import HistoryReader, RawHistory, Selection
from wb_ops.client.run import Run
from wb_ops.client.source import Node, RunSource
from wb_ops.client.sources import RUNS_PER_REQUEST, HistorySources
from wb_ops.tables.runs import OPEN_STATES


def runs_together(
    source: RunSource, reader: HistoryReader, nodes: Sequence[Node], *, require_complete: bool
) -> Iterator[Run]:
    """Yield the runs; the first that reads its history asks for the sources of its neighbours too.

    So runs of which no history is read cost no request, and signed URLs are used soon. With
    `require_complete`, `history_table` and `scan_history` of a run that has ended raise
    IncompleteHistory where the rows do not add up to what the server counts.
    """
    for at in range(0, len(nodes), RUNS_PER_REQUEST):
        some = nodes[at : at + RUNS_PER_REQUEST]
        sources = _SharedSources(source, reader, [node["name"] for node in some])
        for node in some:
            yield _Neighbour(source, reader, node, sources, require_complete)


class RowsInFlight:
    """A bound on the rows that several threads hold; a history above it is held alone."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._held = 0
        self._changed = threading.Condition()

    @contextmanager
    def hold(self, rows: int) -> Iterator[None]:
        """Wait until so many rows fit in, and count them until the end of the block."""
        counted = min(rows, self._most)
        with self._changed:
            self._changed.wait_for(lambda: self._held + counted <= self._most)
            self._held += counted
        try:
            yield
        finally:
            with self._changed:
                self._held -= counted
                self._changed.notify_all()


@dataclass(slots=True)
class _SharedSources:
    source: RunSource
    reader: HistoryReader
    run_ids: list[str]
    _found: dict[str, HistorySources] | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def of(self, run_id: str) -> HistorySources | None:
        """None for a run that has to be asked for alone."""
        with self._lock:
            if self._found is None:
                self._found = self.reader.sources_of(self.source, self.run_ids)
            return self._found.get(run_id)


class _Neighbour(Run):
    def __init__(
        self,
        source: RunSource,
        reader: HistoryReader,
        node: Node,
        sources: _SharedSources,
        require_complete: bool,
    ) -> None:
        super().__init__(source, reader, node)
        self._sources = sources
        self._is_checked = require_complete and self.state not in OPEN_STATES

    def _read(self, selection: Selection, *, require_complete: bool = False) -> RawHistory:
        known = self._sources.of(self.id)
        raw = self._reader.read(self._source, self.id, selection, known)
        return replace(raw, requires_complete=require_complete or self._is_checked)
