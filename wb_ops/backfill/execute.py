"""Carries out a plan: intents into the journal, then batch after batch, with their outcomes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import groupby, islice

from wb_ops.backfill.batch import Batch
from wb_ops.backfill.journal import Journal, Outcome
from wb_ops.backfill.plan import BackfillPlan
from wb_ops.backfill.planned import PlannedValue
from wb_ops.backfill.policy import NO_RUN
from wb_ops.backfill.report import BackfillReport
from wb_ops.backfill.writer import Writer
from wb_ops.client.api import Api
from wb_ops.errors import CommError, InvalidRequest, OutcomeUnknown
from wb_ops.warehouse import Warehouse

RUNS_PER_REQUEST = 25
# More at a time would only wait for the journal and the server's limit.
BATCHES_AT_A_TIME = 4
JOURNAL_EVERY_S = 1.0


def execute_backfill(
    plan: BackfillPlan,
    api: Api,
    warehouse: Warehouse,
    on_progress: Callable[[int, int], None] | None = None,
) -> BackfillReport:
    """Write the planned values, 25 runs in three requests; with `safe`, each run in three.

    Each run is read fresh; a value that is not what the plan saw is a conflict and is left
    alone; only our keys change. The journal has all intents before the first write and each
    outcome after it, so a killed backfill is continued by planning and executing again, or by
    `resume`. `on_progress` is told (values done, values in all).

    Raises:
        InvalidRequest: more values than the request's `max_changes`; nothing is written
            (retry: never).
        OutcomeUnknown: some values are not there although they were sent (retry: verify, that
            is: plan anew). Everything else is written.
        CommError: by the table in `errors`.
    """
    started = time.monotonic()
    sent_before = api.transport.traffic.requests
    request = plan.request
    _check_count(plan)
    report = BackfillReport(plan.backfill_id)
    report.unchanged = sum(value.action == "unchanged" for value in plan.values)
    report.skipped = sum(value.action == "skipped" for value in plan.values)
    report.conflicts += [value for value in plan.values if value.action == "conflict"]
    journal = Journal(warehouse, request.dataset_name, plan.backfill_id, request.owner)
    if request.resume:
        journal.record(_found_closed(plan))
    if plan.to_set:
        _write_all(plan, api, journal, report, on_progress or _silent)
    report.requests = api.transport.traffic.requests - sent_before
    report.seconds = time.monotonic() - started
    if report.unverified:
        raise _unverified(report, str(request.owner))
    return report


def _check_count(plan: BackfillPlan) -> None:
    limit = plan.request.max_changes
    if limit is not None and len(plan.to_set) > limit:
        raise InvalidRequest(
            f"The plan changes {len(plan.to_set)} values, max_changes is {limit}: nothing was "
            "written. Look at the plan, then raise max_changes."
        )


def _found_closed(plan: BackfillPlan) -> Iterator[Outcome]:
    """What a resumed plan found to be settled without a write."""
    for value in plan.values:
        if value.action == "conflict":
            yield value, "conflict", value.reason
        elif value.reason == NO_RUN:
            yield value, "gone", "the run was deleted"


def _write_all(
    plan: BackfillPlan,
    api: Api,
    journal: Journal,
    report: BackfillReport,
    on_progress: Callable[[int, int], None],
) -> None:
    request, values = plan.request, plan.to_set
    source = api.source(str(request.owner))
    writer = Writer(source, values[0].target, request.include_running, bool(request.resume))
    if not request.resume:
        journal.intend(values)
    runs_each, at_a_time = (1, 1) if request.safe else (RUNS_PER_REQUEST, BATCHES_AT_A_TIME)
    done, held, journaled_at = 0, list[Outcome](), time.monotonic()
    try:
        for batch in _written(writer, _batches(values, runs_each), at_a_time):
            held += batch.outcomes
            report.add(batch.outcomes)
            report.repaired += batch.repaired
            report.window_s = max(report.window_s, batch.window_s)
            # Opening a warehouse may cost more than a write. What a kill takes is looked up again.
            if time.monotonic() - journaled_at >= JOURNAL_EVERY_S:
                journal.record(held)
                held, journaled_at = [], time.monotonic()
            done += len(batch.outcomes)
            on_progress(done, len(values))
    finally:
        journal.record(held)


def _written(
    writer: Writer, batches: Iterator[list[PlannedValue]], at_a_time: int
) -> Iterator[Batch]:
    """Write some batches at a time; yields each when it is done.

    After an error no batch is begun, those under way are ended and yielded, then it is raised.
    """
    errors: list[CommError] = []
    pending: set[Future[Batch]] = set()
    with ThreadPoolExecutor(at_a_time, "wb_ops-backfill") as pool:
        while True:
            room = 0 if errors else at_a_time - len(pending)
            pending |= {
                pool.submit(Batch(writer, values).write) for values in islice(batches, room)
            }
            if not pending:
                break
            done, pending = wait(pending, return_when=FIRST_COMPLETED)
            some = [future.result() for future in done]
            errors += [batch.error for batch in some if batch.error is not None]
            yield from some
    if errors:
        raise errors[0]


def _batches(values: Iterable[PlannedValue], runs_each: int) -> Iterator[list[PlannedValue]]:
    batch: list[PlannedValue] = []
    runs = 0
    for _, of_one_run in groupby(values, key=lambda value: value.run_id):
        batch += of_one_run
        runs += 1
        if runs == runs_each:
            yield batch
            batch, runs = [], 0
    if batch:
        yield batch


def _silent(done: int, total: int) -> None:
    """Nobody asked for progress."""


def _unverified(report: BackfillReport, path: str) -> OutcomeUnknown:
    some: Sequence[PlannedValue] = report.unverified[:5]
    return OutcomeUnknown(
        f"{len(report.unverified)} values of {path} are not what was written "
        f"({', '.join(f'{value.run_id}.{value.key}' for value in some)}): another writer changed "
        "them, or the write was lost. Plan again to see.",
        operation="UpsertBucket",
        path=path,
    )
