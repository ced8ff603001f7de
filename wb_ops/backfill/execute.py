"""Carries out a plan: intents into the journal, then batch after batch, with their outcomes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice

from wb_ops.backfill.batch import Batch, in_batches
from wb_ops.backfill.journal import Journal, Outcome
from wb_ops.backfill.ledger import Ledger
from wb_ops.backfill.lookup import RUNS_PER_REQUEST
from wb_ops.backfill.plan import BackfillPlan, plan_backfill
from wb_ops.backfill.planned import PlannedValue
from wb_ops.backfill.policy import NO_RUN
from wb_ops.backfill.report import BackfillReport
from wb_ops.backfill.request import BackfillRequest
from wb_ops.backfill.sweep import Sweep
from wb_ops.backfill.writer import Writer
from wb_ops.client.api import Api
from wb_ops.errors import (
    InvalidRequest,
    OutcomeUnknown,
    PermissionDenied,
    WarehouseUnavailable,
    WbOpsError,
)
from wb_ops.warehouse import Warehouse

# More at a time would only wait for the journal and the server's limit.
BATCHES_AT_A_TIME = 4


def write_backfill(
    request: BackfillRequest,
    api: Api,
    warehouse: Warehouse,
    on_progress: Callable[[int, int], None] | None = None,
) -> BackfillReport:
    """Plan and execute in one call, for who needs not look at the plan.

    Raises:
        As `plan_backfill` and `execute_backfill`.
    """
    return execute_backfill(plan_backfill(request, api, warehouse), api, warehouse, on_progress)


def execute_backfill(
    plan: BackfillPlan,
    api: Api,
    warehouse: Warehouse,
    on_progress: Callable[[int, int], None] | None = None,
) -> BackfillReport:
    """Write the planned values, 25 runs in two requests; with `safe`, each run in two.

    `warehouse` keeps the journal: the `journal` that the plan was made with, else its `warehouse`.

    Each run is read fresh; a value that is not what the plan saw is a conflict and is left
    alone; only our keys change. Some time after the write, 200 runs are read back in a request;
    what other writers took away is written again, until nothing is missing. The journal has all
    intents before the first write and each outcome when it was read back, so a killed backfill is
    continued by executing its stored plan again, by planning anew, or by `resume`.
    `on_progress` is told (values sent, values in all).

    Raises:
        InvalidRequest: more values than the request's `max_changes`; nothing is written
            (retry: never).
        OutcomeUnknown: some values are not there although they were sent (retry: verify, that
            is: plan anew).
        PermissionDenied, InvalidRequest: the server refused the values of some runs (retry:
            never).
        CommError, WarehouseError: by the table in `errors`. What was not sent is `not_sent`.
        Each of these has the report of what was done as its `report`, if something was begun.
    """
    started = time.monotonic()
    sent_before = api.transport.traffic.requests
    request = plan.request
    _check_count(plan)
    report = BackfillReport(plan.backfill_id)
    report.unchanged = sum(value.action == "unchanged" for value in plan.values)
    report.skipped = sum(value.action == "skipped" for value in plan.values)
    if request.undo or request.resume:
        report.left += [value for value in plan.values if value.action == "skipped"]
    report.conflicts += [value for value in plan.values if value.action == "conflict"]
    journal = Journal(warehouse, request.dataset_name, plan.backfill_id, request.owner)
    if request.resume:
        journal.record(_found_closed(plan))
    ledger = Ledger(report, journal)
    try:
        if plan.to_set:
            _write_all(plan, api, ledger, on_progress or _silent)
        _raise_if_not_there(ledger, str(request.owner))
    except WbOpsError as error:
        error.report = report
        raise
    finally:
        report.requests = api.transport.traffic.requests - sent_before
        report.seconds = time.monotonic() - started
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
    plan: BackfillPlan, api: Api, ledger: Ledger, on_progress: Callable[[int, int], None]
) -> None:
    request, values = plan.request, plan.to_set
    source = api.source(str(request.owner))
    # What is there already may be of ours then, from before a kill.
    is_resumed = bool(request.resume) or ledger.journal.is_begun
    writer = Writer(source, values[0].target, request.include_running, is_resumed)
    if not is_resumed:
        ledger.journal.intend(values, request.undo)
    runs_each, at_a_time = (1, 1) if request.safe else (RUNS_PER_REQUEST, BATCHES_AT_A_TIME)
    sweep = Sweep(writer, ledger, runs_each)
    done = 0
    try:
        for batch in _written(writer, in_batches(values, runs_each), at_a_time, ledger):
            sweep.add(batch)
            done += len(batch.values)
            on_progress(done, len(values))
            sweep.look_at_due()
        sweep.finish()
        why = f"not begun: {sweep.error or 'the journal could not be written to'}"
        ledger.close((value for value in values if value.action == "set"), why)
    finally:
        ledger.report.watched = writer.watches
        ledger.flush()
    if sweep.error is not None:
        raise sweep.error


def _written(
    writer: Writer, batches: Iterator[list[PlannedValue]], at_a_time: int, ledger: Ledger
) -> Iterator[Batch]:
    """Write some batches at a time; yields each when it is done.

    After an error, or while the journal cannot be written to, no batch is begun; those under way
    are ended and yielded.
    """
    has_failed = False
    pending: set[Future[Batch]] = set()
    with ThreadPoolExecutor(at_a_time, "wb_ops-backfill") as pool:
        while True:
            room = 0 if has_failed else at_a_time - len(pending)
            pending |= {
                pool.submit(Batch(writer, values).write) for values in islice(batches, room)
            }
            if not pending:
                break
            done, pending = wait(pending, return_when=FIRST_COMPLETED)
            some = [future.result() for future in done]
            has_failed = has_failed or any(batch.error is not None for batch in some)
            has_failed = has_failed or ledger.error is not None
            yield from some


def _silent(done: int, total: int) -> None:
    """Nobody asked for progress."""


def _raise_if_not_there(ledger: Ledger, path: str) -> None:
    """Nothing that was asked for and is not there passes for a success."""
    report = ledger.report
    if report.unverified:
        raise _unverified(report, path)
    if report.not_sent:
        raise WarehouseUnavailable(
            f"{len(report.not_sent)} values of {path} were not sent: the journal could not be "
            "written to for a time. Resume, or plan again."
        )
    if report.failed:
        reasons = "; ".join(sorted(ledger.refusals)[:5]).rstrip(".")
        is_access = "read-only" in reasons or PermissionDenied.__name__ in reasons
        cls = PermissionDenied if is_access else InvalidRequest
        raise cls(
            f"{len(report.failed)} values of {path} were refused ({_some(report.failed)}): "
            f"{reasons}; {report.others}. Mend that, then resume {report.backfill_id}.",
            operation="UpsertBucket",
            path=path,
        )


def _some(values: Sequence[PlannedValue]) -> str:
    return ", ".join(f"{value.run_id}.{value.key}" for value in values[:5])


def _unverified(report: BackfillReport, path: str) -> OutcomeUnknown:
    return OutcomeUnknown(
        f"{len(report.unverified)} values of {path} are not what was written "
        f"({_some(report.unverified)}): another writer changed them, or the write was lost. "
        f"Resume {report.backfill_id}, or plan again to see.",
        operation="UpsertBucket",
        path=path,
    )
