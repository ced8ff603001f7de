"""Staged runs with their receipts: read, checked against the server, ready to be committed."""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar, cast

from wb_ops.client.source import Node, RunSource
from wb_ops.errors import Advice, AdviceKind, CommError, Facts, NotFound
from wb_ops.export.decide import PlannedRun, cleaned
from wb_ops.export.receipts import Receipt, receipts_of
from wb_ops.export.request import ExportRequest
from wb_ops.export.staged import StagedRows, StagedRun

MAX_RUNS_PER_BATCH = 1000

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Sealed:
    """One run to commit.

    Attributes:
        run_id: the run.
        node: the run as the server describes it after its rows were read; None if it is gone.
        receipts: of each table that was read.
        history, system: staged rows; `None` where the table is left as it is.
        tail_from: the staged history begins at this step; None: it is the whole.
        keys: the metrics that were read, None for all.
        written_by: the load that had written the run when the export was planned.
        rows: staged history rows.
    """

    run_id: str
    node: Node | None
    receipts: tuple[Receipt, ...]
    history: tuple[StagedRows, ...] | None
    system: tuple[StagedRows, ...] | None
    tail_from: int | None
    keys: tuple[str, ...] | None
    written_by: str | None
    rows: int


@dataclass(frozen=True, slots=True)
class SealedBatch:
    """One transaction.

    Attributes:
        runs: what was read.
        changed: runs that the server has changed since they were read: not written.
        is_last: with it the deletions, the end of the load and the watermark.
        stopped: the error that ended the reading after these runs; no other batch follows.
    """

    runs: Sequence[Sealed] = ()
    changed: Sequence[Sealed] = ()
    is_last: bool = False
    stopped: CommError | None = None

    def discard(self) -> None:
        """Free the disk and memory that the rows of all of its runs take."""
        for one in (*self.runs, *self.changed):
            for part in (*(one.history or ()), *(one.system or ())):
                part.discard()


def marked_last(items: Iterable[T]) -> Iterator[tuple[T, bool]]:
    """Give each item, and whether it is the last; the next one is looked at before."""
    held: list[T] = []
    for item in items:
        if held:
            yield held.pop(), False
        held.append(item)
    for item in held:
        yield item, True


@dataclass(slots=True)
class BatchSize:
    """How large a transaction is: runs, and cells (rows x the union of columns)."""

    max_cells: int
    runs: int = 0
    rows: int = 0
    columns: set[str] = field(default_factory=set)

    def takes(self, rows: int, columns: Collection[str]) -> bool:
        """Take one more run in; False where it must be the first of another transaction."""
        cells = (self.rows + rows) * len(self.columns.union(columns))
        if self.runs and (self.runs >= MAX_RUNS_PER_BATCH or cells > self.max_cells):
            return False
        self.runs += 1
        self.rows += rows
        self.columns.update(columns)
        return True


@dataclass(frozen=True, slots=True)
class StagedBatch:
    """Staged runs that fit into one transaction.

    Attributes:
        runs: none only where nothing was read.
        is_last: all has been read.
        stopped: the error that ended the reading after these runs.
    """

    runs: list[StagedRun]
    is_last: bool = False
    stopped: CommError | None = None


def batched(staged_runs: Iterator[StagedRun], max_cells: int) -> Generator[StagedBatch, None, None]:
    """Group staged runs into what fits into one transaction.

    What was read before an error that stops everything comes last, with that error: a limit that
    comes back at every attempt must not keep an export from getting on.
    """
    batch: list[StagedRun] = []
    size = BatchSize(max_cells)
    try:
        for staged in staged_runs:
            if not size.takes(staged.rows, staged.columns):
                yield StagedBatch(batch)
                batch, size = [], BatchSize(max_cells)
                size.takes(staged.rows, staged.columns)
            batch.append(staged)
    except CommError as error:
        yield StagedBatch(batch, stopped=error)
        return
    yield StagedBatch(batch, is_last=True)


def seal(
    request: ExportRequest, source: RunSource, staged: Sequence[StagedRun], *, is_cut_off: bool
) -> list[Sealed]:
    """Check what was read against the server's counters; one request for 200 runs.

    With `is_cut_off` the server answers no more: the counters of the listing are taken, which are
    older than the rows. So they are for a run that the server cannot give now: it is not deleted.
    A run that has changed since differs from them at the next plan.
    """
    listed = {one.run_id: one.planned.node for one in staged}
    if is_cut_off:
        nodes = listed
    else:
        # The counters are read after the rows: what they count is there to be found.
        broken: dict[str, CommError] = {}
        nodes = source.fetch_nodes(list(listed), on_broken=broken.__setitem__)
        nodes |= {run_id: listed[run_id] for run_id in broken}
    return [_sealed(request, one, nodes.get(one.run_id)) for one in staged]


def _sealed(request: ExportRequest, staged: StagedRun, node: Node | None) -> Sealed:
    history, system, planned = staged.history, staged.system, staged.planned
    return Sealed(
        run_id=staged.run_id,
        node=None if node is None else cleaned(request, node),
        receipts=tuple(receipts_of(staged, node, redacted=request.redact_secrets)),
        history=None if history is None else history.parts,
        system=None if system is None else system.parts,
        tail_from=None if history is None else history.tail_from,
        keys=planned.keys,
        written_by=planned.written_by,
        rows=staged.rows,
    )


def advices_of(staged: Iterable[StagedRun]) -> list[Advice]:
    """When it helps to try the failed ones again."""
    return [error.advice for error in _errors_of(staged)]


def facts_of(staged: Iterable[StagedRun]) -> Facts:
    """The facts of the failure after which the server asked for the longest wait, or the first."""
    return most_telling(cast(Facts, error.facts) for error in _errors_of(staged))


def most_telling(facts: Iterable[Facts]) -> Facts:
    """Those with the longest wait, or the first; none of none."""
    return max(facts, key=lambda one: one.get("retry_after_s") or 0.0, default=Facts())


def _errors_of(staged: Iterable[StagedRun]) -> list[CommError]:
    errors = (error for one in staged for error in (one.error, one.system_error))
    return [error for error in errors if error is not None and not isinstance(error, NotFound)]


def late_advices(receipts: Iterable[Receipt]) -> list[Advice]:
    """The rows that are missing may be exported later."""
    return [Advice(AdviceKind.BACKOFF) for one in receipts if one.status == "unexplained"]


def unread(run: PlannedRun) -> Sealed:
    """A run of which no rows are read: only its row in `runs` is written."""
    return Sealed(run.run_id, run.node, (), None, None, None, run.keys, run.written_by, 0)
