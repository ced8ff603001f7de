"""Writes what a plan says: read fresh, journal, merge per key, send, read back, journal."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from wb_ops.backfill.journal import Journal
from wb_ops.backfill.plan import BackfillPlan, PlannedValue
from wb_ops.client.api import Api
from wb_ops.client.documents import split_members
from wb_ops.client.source import Node, RunSource
from wb_ops.client.writing import Change, Written, same_json, write_changes
from wb_ops.errors import CommError, OutcomeUnknown
from wb_ops.warehouse import Warehouse

RUNS_PER_REQUEST = 25


@dataclass(slots=True)
class BackfillReport:
    """What became of a backfill, counted in values (one key of one run).

    `conflicts` were changed by somebody else since the plan and were left alone; plan again.
    """

    backfill_id: str
    written: list[PlannedValue] = field(default_factory=list)
    conflicts: list[PlannedValue] = field(default_factory=list)
    unverified: list[PlannedValue] = field(default_factory=list)
    gone: list[PlannedValue] = field(default_factory=list)
    unchanged: int = 0
    skipped: int = 0
    requests: int = 0
    seconds: float = 0.0

    @property
    def runs(self) -> int:
        """How many runs were written to."""
        return len({value.run_id for value in self.written})

    def __str__(self) -> str:
        counts = {
            "written": len(self.written),
            "unchanged": self.unchanged,
            "skipped": self.skipped,
            "in conflict": len(self.conflicts),
            "of deleted runs": len(self.gone),
            "not verified": len(self.unverified),
        }
        told = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
        return (
            f"backfill {self.backfill_id}: {told or 'nothing to write'}; {self.runs} runs changed "
            f"in {self.seconds:.1f} s ({self.requests} requests)"
        )


def execute_backfill(
    plan: BackfillPlan,
    api: Api,
    warehouse: Warehouse,
    on_progress: Callable[[int, int], None] | None = None,
) -> BackfillReport:
    """Write the planned values, 25 runs at a time; four requests a batch at most.

    Each run is read fresh; a value that is not what the plan saw is a conflict and is left
    alone; only our keys change in the summary. The journal has an intent before each write and
    its outcome after it, so a killed backfill is continued by planning and executing again.
    `on_progress` is told (values done, values in all).

    Raises:
        OutcomeUnknown: some values are not there although they were sent (retry: verify, that
            is: plan anew). Everything else is written.
        CommError: by the table in `errors`.
    """
    started = time.monotonic()
    sent_before = api.transport.traffic.requests
    request = plan.request
    report = BackfillReport(plan.backfill_id)
    report.unchanged = sum(value.action == "unchanged" for value in plan.values)
    report.skipped = sum(value.action == "skipped" for value in plan.values)
    source = api.source(str(request.owner))
    journal = Journal(warehouse, request.dataset_name, plan.backfill_id)
    done = 0
    for batch in _batches(plan.to_set):
        _write_batch(source, batch, journal, report)
        done += len(batch)
        if on_progress is not None:
            on_progress(done, len(plan.to_set))
    report.requests = api.transport.traffic.requests - sent_before
    report.seconds = time.monotonic() - started
    if report.unverified:
        raise _unverified(report, str(request.owner))
    return report


def _batches(values: Iterable[PlannedValue]) -> Iterator[list[PlannedValue]]:
    batch: list[PlannedValue] = []
    runs = 0
    for _, of_one_run in groupby(values, key=lambda value: value.run_id):
        batch += of_one_run
        runs += 1
        if runs == RUNS_PER_REQUEST:
            yield batch
            batch, runs = [], 0
    if batch:
        yield batch


def _write_batch(
    source: RunSource, batch: Sequence[PlannedValue], journal: Journal, report: BackfillReport
) -> None:
    fresh = source.fetch_nodes(sorted({value.run_id for value in batch}))
    gone = [value for value in batch if value.run_id not in fresh]
    conflicts = [v for v in batch if v.run_id in fresh and not _still(v, fresh[v.run_id])]
    left_alone = {*gone, *conflicts}
    writable = [value for value in batch if value not in left_alone]
    journal.record("failed", gone, "the run was deleted")
    journal.record("conflict", conflicts, "changed by another writer since the plan")
    journal.record("intent", writable)
    try:
        outcomes = write_changes(source.transport, source, _changes(writable), fresh)
    except CommError as error:
        journal.record("failed", writable, f"{type(error).__name__}: {error}")
        raise
    _settle(writable, {outcome.run_id: outcome for outcome in outcomes}, journal, report)
    report.gone += gone
    report.conflicts += conflicts


def _still(value: PlannedValue, node: Node) -> bool:
    """Whether the run holds what the plan saw, or already what it wants."""
    now = split_members(node.get("summaryMetrics")).get(value.key)
    return same_json(now, value.old) or same_json(now, value.new)


def _changes(values: Sequence[PlannedValue]) -> list[Change]:
    return [
        Change(run_id, summary={value.key: value.new for value in of_one_run})
        for run_id, of_one_run in groupby(values, key=lambda value: value.run_id)
    ]


def _settle(
    values: Sequence[PlannedValue],
    outcomes: dict[str, Written],
    journal: Journal,
    report: BackfillReport,
) -> None:
    gone = [value for value in values if outcomes[value.run_id].node is None]
    unverified = [value for value in values if value.key in outcomes[value.run_id].unverified]
    written = [value for value in values if value not in gone and value not in unverified]
    journal.record("written", written)
    journal.record("unverified", unverified, "not what was read back")
    journal.record("failed", gone, "the run was deleted")
    report.written += written
    report.unverified += unverified
    report.gone += gone


def _unverified(report: BackfillReport, path: str) -> OutcomeUnknown:
    some = ", ".join(f"{value.run_id}.{value.key}" for value in report.unverified[:5])
    return OutcomeUnknown(
        f"{len(report.unverified)} values of {path} are not what was written ({some}): another "
        "writer changed them, or the write was lost. Plan again to see.",
        operation="UpsertBucket",
        path=path,
    )
