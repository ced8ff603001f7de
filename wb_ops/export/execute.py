"""Carries out a plan in one process: read, stage, commit in batches.

One batch is committed while the next is read. The warehouse is open only inside a commit, which
waits for no request. The watermark moves with the last batch: an export that is killed is
continued by the next one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from wb_ops.client.api import Api
from wb_ops.client.local_files import temporary_folder
from wb_ops.client.source import RunSource
from wb_ops.errors import ExportIncomplete, Facts
from wb_ops.export.commit import Committer
from wb_ops.export.decide import PlannedRun
from wb_ops.export.parts import chunked
from wb_ops.export.planned import ExportPlan
from wb_ops.export.reading import ConcurrentReader, by_key_set
from wb_ops.export.report import ExportReport, Progress, new_report
from wb_ops.export.sealed import (
    MAX_RUNS_PER_BATCH,
    Sealed,
    SealedBatch,
    advices_of,
    batched,
    facts_of,
    late_advices,
    marked_last,
    seal,
    unread,
)
from wb_ops.export.staged import Room, StagedRun
from wb_ops.export.staging import Stager
from wb_ops.warehouse import Warehouse

SECONDS_BETWEEN_NEWS = 2.0


def execute_export(
    plan: ExportPlan,
    api: Api,
    warehouse: Warehouse,
    on_progress: Callable[[Progress], None] | None = None,
) -> ExportReport:
    """Write what the plan says; running the same plan again gives the same tables.

    Each batch (rows, receipts, load) is one transaction; the last one moves the watermark.
    A run's own failure goes into its receipt and the rest goes on.

    Raises:
        ExportIncomplete: with `on_incomplete="fail"`, after everything else is committed; in any
            case where not one history could be read, unless all of them failed before. Its
            `report` is the one that would have been returned.
        CommError: AuthenticationFailed, RateLimited and ConnectionFailed stop everything, as do
            ten histories in a row that the server fails to give; what was read before is
            committed, the watermark does not move.
        WarehouseError: the warehouse is busy, unavailable or refuses.
    """
    with temporary_folder("wb_ops-staging-") as folder:
        return _Execution(plan, api, warehouse, folder, on_progress).run()


@dataclass(slots=True)
class Meter:
    """Brings a report's requests, bytes and seconds up to date, from what it has on."""

    api: Api
    report: ExportReport
    started: float = field(default_factory=time.monotonic)
    sent: int = field(init=False)
    received: int = field(init=False)
    waited_s: float = field(init=False)

    def __post_init__(self) -> None:
        traffic = self.api.transport.traffic
        self.sent, self.received, self.waited_s = (
            traffic.requests - self.report.requests,
            traffic.received_bytes - self.report.size_bytes,
            traffic.waited_s,
        )

    def __call__(self) -> None:
        traffic = self.api.transport.traffic
        self.report.requests = traffic.requests - self.sent
        self.report.size_bytes = traffic.received_bytes - self.received
        self.report.waited_s = traffic.waited_s - self.waited_s
        self.report.seconds = time.monotonic() - self.started


@dataclass(slots=True)
class _Execution:
    plan: ExportPlan
    api: Api
    warehouse: Warehouse
    folder: Path
    on_progress: Callable[[Progress], None] | None
    source: RunSource = field(init=False)
    report: ExportReport = field(init=False)
    measure: Meter = field(init=False)
    committer: Committer = field(init=False)
    runs_done: int = 0
    rows_read: int = 0
    told: tuple[int, int] = (0, 0)
    told_at: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.source = self.api.source(str(self.plan.request.owner))
        self.report = new_report(self.plan, self.warehouse.url)
        self.measure = Meter(self.api, self.report)
        self.committer = Committer(self.plan, self.warehouse, self.report, self.measure)

    def run(self) -> ExportReport:
        self.committer.commit_each(self._batches(), self._count)
        self.measure()
        raise_if_incomplete(self.plan, self.report)
        return self.report

    def _batches(self) -> Generator[SealedBatch, None, None]:
        request = self.plan.request
        runs = [run for run in self.plan.runs if run.reads_rows]
        edited = [unread(run) for run in self.plan.runs if not run.reads_rows]
        for some, ends in marked_last(chunked(edited, MAX_RUNS_PER_BATCH)):
            yield SealedBatch(some, is_last=ends and not runs)
        if edited and not runs:
            return
        for batch in batched(self._staged(runs), request.max_cells):
            is_cut_off = batch.stopped is not None
            sealed = seal(request, self.source, batch.runs, is_cut_off=is_cut_off)
            self._note(batch.runs, sealed)
            yield SealedBatch(sealed, is_last=batch.is_last, stopped=batch.stopped)

    def _staged(self, planned: Sequence[PlannedRun]) -> Iterator[StagedRun]:
        request = self.plan.request
        stager = Stager(
            self.source,
            self.api.reader,
            self.folder,
            self.plan.load_id,
            request.redact_secrets,
            room=Room(request.max_cells),
        )
        runs = by_key_set(planned)
        staged_so_far = rows_so_far = 0
        for staged in ConcurrentReader(stager, request.max_workers).iter_staged(runs):
            staged_so_far, rows_so_far = staged_so_far + 1, rows_so_far + staged.rows
            if time.monotonic() - self.told_at >= SECONDS_BETWEEN_NEWS:
                self._tell(staged_so_far, rows_so_far)
            yield staged

    def _note(self, staged: Sequence[StagedRun], sealed: Sequence[Sealed]) -> None:
        self.report.advices += advices_of(staged)
        self.report.facts = self.report.facts or facts_of(staged)
        for one in sealed:
            self.report.advices += late_advices(one.receipts)

    def _count(self, committed: SealedBatch) -> None:
        self.runs_done += len(committed.runs)
        self.rows_read += sum(one.rows for one in committed.runs)
        if committed.runs:
            self._tell(self.runs_done, self.rows_read)

    def _tell(self, runs: int, rows: int) -> None:
        """Report progress; it does not go back where rows are read and not yet committed."""
        self.told_at = time.monotonic()
        self.told = max(self.told[0], runs), max(self.told[1], rows)
        if self.on_progress is None:
            return
        self.measure()
        self.on_progress(
            Progress(
                self.told[0],
                self.plan.totals.runs,
                self.told[1],
                self.plan.history_rows,
                self.report.size_bytes,
                self.report.seconds,
            )
        )


def _is_void(plan: ExportPlan, report: ExportReport) -> bool:
    """Whether all that was read failed: then there is no export to mark as incomplete.

    Runs that failed before are no news: one that is broken for good must not fail every quiet hour.
    """
    read = [one for one in report.receipts if one.table_name == "history"]
    if not read or any(one.status != "failed" for one in read):
        return False
    before = {run.run_id for run in plan.iter_runs() if run.held and run.held["status"] == "failed"}
    return any(one.run_id not in before for one in read)


def raise_if_incomplete(plan: ExportPlan, report: ExportReport) -> None:
    """Raise ExportIncomplete where the request, or the lack of any success, asks for it."""
    if not (_is_void(plan, report) or (report.unsound and plan.request.on_incomplete == "fail")):
        return
    worst = ", ".join(
        f"{one.run_id} {one.status}" + (f" ({one.note})" if one.note else "")
        for one in report.unsound[:5]
    )
    facts: Facts = {"path": str(plan.request.owner), **report.facts}
    error = ExportIncomplete(
        f"{len(report.unsound)} of {len(report.receipts)} receipts of {plan.request.owner} do "
        f"not add up; everything else is committed: {worst}",
        report.advices,
        **facts,
    )
    error.report = report
    raise error
