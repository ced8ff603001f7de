"""Carries out a plan: read many histories at once, stage them, commit them in batches.

The warehouse is open only inside a commit, never across a request. The watermark moves with the
last batch: an export that is killed is continued by the next one.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa

from wb_ops.client.api import Api
from wb_ops.client.source import Node, RunSource
from wb_ops.client.sources import HistorySources
from wb_ops.errors import (
    Advice,
    AdviceKind,
    AuthenticationFailed,
    CommError,
    ConnectionFailed,
    ExportIncomplete,
    MalformedResponse,
    NotFound,
    RateLimited,
    RequestTimeout,
    ServerUnavailable,
)
from wb_ops.export.plan import ExportPlan, PlannedRun
from wb_ops.export.receipts import Receipt, deleted_table, receipt, receipts_table
from wb_ops.export.report import ExportReport, Progress
from wb_ops.export.staging import StagedRun, stage_history
from wb_ops.export.state import Marks
from wb_ops.tables.runs import runs_table
from wb_ops.tables.schemas import LOADS, RECEIPTS, SCHEMA_VERSION, STATE
from wb_ops.warehouse import Batch, Warehouse

log = logging.getLogger("wb_ops")

MAX_RUNS_PER_BATCH = 1000
MAX_FAILURES_IN_A_ROW = 10

# A run that cannot be read goes into its receipt; these are not about one run.
_STOPS_ALL = (AuthenticationFailed, RateLimited, ConnectionFailed)


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
            case where not one history could be read.
        CommError: AuthenticationFailed, RateLimited and ConnectionFailed stop everything, as do
            ten histories in a row that the server fails to give; what was read before is
            committed, the watermark does not move.
        WarehouseError: the warehouse is busy, unavailable or refuses.
    """
    with TemporaryDirectory(prefix="wb_ops-staging-") as folder:
        execution = _Execution(plan, api, warehouse, Path(folder), on_progress)
        return execution.run()


@dataclass(slots=True)
class _Execution:
    plan: ExportPlan
    api: Api
    warehouse: Warehouse
    folder: Path
    on_progress: Callable[[Progress], None] | None
    source: RunSource = field(init=False)
    report: ExportReport = field(init=False)
    runs_done: int = 0
    failures_in_a_row: int = 0
    rows_read: int = 0
    started: float = field(default_factory=time.monotonic)
    sent_before: int = 0
    received_before: int = 0
    waited_before: float = 0.0

    def __post_init__(self) -> None:
        request = self.plan.request
        transport = self.api.transport
        self.source = self.api.source(str(request.owner))
        self.sent_before = transport.traffic.requests
        self.received_before = transport.traffic.received_bytes
        self.waited_before = transport.traffic.waited_s
        self.report = ExportReport(
            load_id=self.plan.load_id,
            dataset=request.dataset_name,
            warehouse=self.warehouse.url,
            unchanged=self.plan.unchanged,
        )

    def run(self) -> ExportReport:
        edited = [run for run in self.plan.runs if not run.reads_history]
        for some in _chunks(edited, MAX_RUNS_PER_BATCH):
            self._commit_edited(some)
        for batch, stopped in self._staged_batches():
            self._commit_staged(batch, stopped)
            if stopped is not None:
                raise stopped
        self._finish()
        return self.report

    def _staged_batches(self) -> Iterator[tuple[list[StagedRun], CommError | None]]:
        """Read histories concurrently; yield what fits into one transaction.

        What was read before an error that stops everything comes last, with that error: a limit
        that comes back at every attempt must not keep an export from getting on.
        """
        batch: list[StagedRun] = []
        cells = 0
        try:
            for staged in self._staged():
                batch.append(staged)
                cells += staged.cells
                if cells >= self.plan.request.max_cells or len(batch) >= MAX_RUNS_PER_BATCH:
                    yield batch, None
                    batch, cells = [], 0
        except CommError as error:
            yield batch, error
            return
        if batch:
            yield batch, None

    def _staged(self) -> Iterator[StagedRun]:
        waiting = (run for run in self.plan.runs if run.reads_history)
        workers = self.plan.request.max_workers
        with ThreadPoolExecutor(workers, "wb_ops-export") as pool:
            pending: set[Future[StagedRun]] = set()
            try:
                while True:
                    # Few are under way at a time, so that finished ones do not pile up.
                    # Refilled in strokes: the sources of several runs come in one request.
                    room = 2 * workers - len(pending) if len(pending) <= workers else 0
                    for run, sources in self._with_sources(list(islice(waiting, room))):
                        pending.add(pool.submit(self._stage, run, sources))
                    if not pending:
                        return
                    done, pending = wait(pending, return_when=FIRST_COMPLETED)
                    # Those that succeeded first: they are kept whatever the others raise.
                    for future in sorted(done, key=lambda one: one.exception() is not None):
                        yield self._checked(future.result())
            finally:
                pool.shutdown(cancel_futures=True)

    def _checked(self, staged: StagedRun) -> StagedRun:
        """Stop where the server, not a run, is the trouble: nothing but failures for a while."""
        is_down = isinstance(staged.error, ServerUnavailable | RequestTimeout)
        self.failures_in_a_row = self.failures_in_a_row + 1 if is_down else 0
        if is_down and self.failures_in_a_row >= MAX_FAILURES_IN_A_ROW:
            assert staged.error is not None  # noqa: S101 - is_down says so
            raise staged.error
        return staged

    def _with_sources(
        self, runs: Sequence[PlannedRun]
    ) -> list[tuple[PlannedRun, HistorySources | None]]:
        """Where the rows of these runs are, asked for together."""
        found = self.api.reader.sources_of(self.source, [run.run_id for run in runs])
        return [(run, found.get(run.run_id)) for run in runs]

    def _stage(self, planned: PlannedRun, sources: HistorySources | None) -> StagedRun:
        try:
            return stage_history(
                planned, self.source, self.api.reader, self.folder, self.plan.load_id, sources
            )
        except _STOPS_ALL:
            raise
        except CommError as error:
            log.warning("run %s: %s", planned.run_id, error)
            return StagedRun(planned, error=error)
        except ValueError as exc:
            # Rows that no rule of ours foresaw: this run's trouble, not everybody's.
            log.warning("run %s: %s", planned.run_id, exc)
            return StagedRun(planned, error=MalformedResponse(f"Unreadable rows: {exc}", exc))

    def _commit_staged(self, batch: Sequence[StagedRun], stopped: CommError | None) -> None:
        if stopped is not None:
            # The server answers no more. The counters of the listing are older than the rows;
            # a run that has changed since differs from them at the next plan.
            after = {staged.run_id: staged.planned.node for staged in batch}
        else:
            # The counters are read after the rows: what they count is there to be found.
            after = self.source.fetch_nodes([staged.run_id for staged in batch])
        receipts = [receipt(staged, after.get(staged.run_id)) for staged in batch]
        read = [staged for staged in batch if staged.error is None and staged.run_id in after]
        gone = [staged.run_id for staged in batch if staged.run_id not in after]
        self._commit(
            nodes=[after[staged.run_id] for staged in batch if staged.run_id in after],
            receipts=receipts,
            history=[path for staged in read for path in staged.paths],
            replaced=[staged.run_id for staged in read],
            deleted=gone,
        )
        self._note(batch, receipts)

    def _commit_edited(self, runs: Sequence[PlannedRun]) -> None:
        self._commit(nodes=[run.node for run in runs])
        self._progress(len(runs), 0)

    def _commit(
        self,
        nodes: Sequence[Node],
        receipts: Sequence[Receipt] = (),
        history: Sequence[Path] = (),
        replaced: Sequence[str] = (),
        deleted: Sequence[str] = (),
    ) -> None:
        owner, load_id = self.plan.request.owner, self.plan.load_id
        rows, unreadable = self._rows(nodes)
        self.report.receipts += unreadable
        hashes = dict(
            zip(rows["run_id"].to_pylist(), rows["content_hash"].to_pylist(), strict=True)
        )
        now = datetime.now(UTC)
        committed = self.warehouse.commit(
            Batch(
                dataset=self.plan.request.dataset_name,
                owner=owner,
                load_id=load_id,
                runs=rows,
                history=history,
                replaced=replaced,
                deleted=deleted,
                meta={
                    "_wb_receipts": receipts_table([*receipts, *unreadable], hashes, load_id, now),
                    "_wb_loads": self._load_row("running", None),
                    # The owner is on record from the first batch on; the marks do not move yet.
                    "_wb_state": self._state_row(self.plan.before),
                },
            )
        )
        for path in history:
            path.unlink()
        self.report.runs += committed.runs
        self.report.history_rows += committed.history_rows
        self.report.new_columns += committed.new_columns

    def _rows(self, nodes: Sequence[Node]) -> tuple[pa.Table, list[Receipt]]:
        """Rows of `runs`, and receipts of the runs that have none because they are unreadable."""
        owner, load_id = self.plan.request.owner, self.plan.load_id
        rows = partial(runs_table, entity=owner.entity, project=owner.project, load_id=load_id)
        try:
            return rows(nodes), []
        except ValueError:
            good, failed = [], []
            for node in nodes:
                try:
                    rows([node])
                    good.append(node)
                except ValueError as exc:
                    log.warning("run %s: %s", node["name"], exc)
                    failed.append(Receipt(node["name"], "failed", note=str(exc), table_name="runs"))
            return rows(good), failed

    def _finish(self) -> None:
        """Mark deletions, close the load and move the watermark, in one transaction."""
        plan, request = self.plan, self.plan.request
        now = datetime.now(UTC)
        meta = {
            "_wb_receipts": deleted_table(plan.deleted, plan.load_id, now)
            if plan.deleted
            else RECEIPTS.empty_table(),
            "_wb_loads": self._load_row("incomplete" if self.report.unsound else "complete", now),
            "_wb_state": self._state_row(plan.after),
        }
        self.warehouse.commit(
            Batch(
                dataset=request.dataset_name,
                owner=request.owner,
                load_id=plan.load_id,
                runs=runs_table(
                    [], entity=request.entity, project=request.project, load_id=plan.load_id
                ),
                deleted=plan.deleted,
                meta=meta,
            )
        )
        self.report.deleted += len(plan.deleted)
        self._measure()
        # With nothing but failures there is no export to mark as incomplete.
        is_void = bool(self.report.receipts) and set(self.report.statuses) == {"failed"}
        if is_void or (self.report.unsound and request.on_incomplete == "fail"):
            raise self._incomplete()

    def _state_row(self, marks: Marks) -> pa.Table:
        plan, request = self.plan, self.plan.request
        row = {
            "scope": request.scope,
            "entity": request.entity,
            "project": request.project,
            "watermark": marks.watermark,
            "reconciled_at": marks.reconciled_at,
            "schema_version": SCHEMA_VERSION,
            "load_id": plan.load_id,
            "updated_at": marks.checked_at,
        }
        return pa.Table.from_pylist([row], schema=STATE)

    def _load_row(self, status: str, finished_at: datetime | None) -> pa.Table:
        self._measure()
        report = self.report
        row = {
            "load_id": self.plan.load_id,
            "plan_id": self.plan.plan_id,
            "scope": self.plan.request.scope,
            "mode": self.plan.mode,
            "started_at": self.plan.planned_at,
            "finished_at": finished_at,
            "runs": report.runs,
            "history_rows": report.history_rows,
            "requests": report.requests,
            "size_bytes": report.size_bytes,
            "status": status,
            "note": f"{self.plan.hidden} runs counted but not listed" if self.plan.hidden else None,
        }
        return pa.Table.from_pylist([row], schema=LOADS)

    def _measure(self) -> None:
        transport = self.api.transport
        self.report.requests = transport.traffic.requests - self.sent_before
        self.report.size_bytes = transport.traffic.received_bytes - self.received_before
        self.report.waited_s = transport.traffic.waited_s - self.waited_before
        self.report.seconds = time.monotonic() - self.started

    def _note(self, batch: Sequence[StagedRun], receipts: Sequence[Receipt]) -> None:
        self.report.receipts += receipts
        self.report.advices += [
            staged.error.advice
            for staged in batch
            if staged.error is not None and not isinstance(staged.error, NotFound)
        ]
        # The rows that are missing may be exported later.
        late = [one for one in receipts if one.status == "unexplained"]
        self.report.advices += [Advice(AdviceKind.BACKOFF)] * len(late)
        self._progress(len(batch), sum(staged.rows for staged in batch))

    def _progress(self, runs: int, rows: int) -> None:
        self.runs_done += runs
        self.rows_read += rows
        if self.on_progress is not None:
            self._measure()
            self.on_progress(
                Progress(
                    self.runs_done,
                    len(self.plan.runs),
                    self.rows_read,
                    self.plan.history_rows,
                    self.report.size_bytes,
                    self.report.seconds,
                )
            )

    def _incomplete(self) -> ExportIncomplete:
        worst = ", ".join(
            f"{one.run_id} {one.status}" + (f" ({one.note})" if one.note else "")
            for one in self.report.unsound[:5]
        )
        return ExportIncomplete(
            f"{len(self.report.unsound)} of {len(self.report.receipts)} histories of "
            f"{self.plan.request.owner} do not add up; everything else is committed: {worst}",
            self.report.advices,
            path=str(self.plan.request.owner),
        )


def _chunks(runs: Sequence[PlannedRun], size: int) -> Iterator[Sequence[PlannedRun]]:
    for at in range(0, len(runs), size):
        yield runs[at : at + size]
