"""Decides what an export will read. Reads the listing and the warehouse's state, writes nothing."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from wb_ops.client.api import Api
from wb_ops.client.source import Node, RunSource
from wb_ops.export.fingerprints import Fingerprint, fingerprint, wider_keys
from wb_ops.export.request import ExportRequest, Mode
from wb_ops.export.state import OVERLAP, ExportState, Known, Marks, read_state
from wb_ops.tables.runs import parse_server_time, run_row
from wb_ops.warehouse import Warehouse

# One request for the counters and sources of a history, and about one for a file of it.
REQUESTS_PER_HISTORY = 2


@dataclass(frozen=True, slots=True)
class PlannedRun:
    """One run to write, why, and whether its history is read.

    `held` is the last receipt of its history, if the warehouse has rows of it.
    """

    node: Node = field(repr=False)
    reason: str
    reads_history: bool
    keys: tuple[str, ...] | None = None
    held: Mapping[str, Any] | None = field(default=None, repr=False)

    @property
    def run_id(self) -> str:
        """The run's id."""
        return str(self.node["name"])


@dataclass(frozen=True, slots=True)
class ExportPlan:
    """What an export will do; `str(plan)` is for people.

    Executing the same plan twice gives the same tables. `hidden` is how many more runs the server
    counts than it listed: runs that came or went meanwhile, or that this key may not see.
    """

    request: ExportRequest
    plan_id: str
    mode: Mode
    runs: tuple[PlannedRun, ...]
    deleted: tuple[str, ...]
    listed: int
    hidden: int
    before: Marks
    after: Marks
    planned_at: datetime

    @property
    def load_id(self) -> str:
        """The load that executes this plan."""
        return f"load-{self.plan_id}"

    @property
    def unchanged(self) -> int:
        """Listed runs of which nothing has to be written."""
        return self.listed - len(self.runs)

    @property
    def history_rows(self) -> int:
        """Rows that the server counts in the histories to read."""
        return sum(int(run.node.get("historyLineCount") or 0) for run in self._histories)

    @property
    def requests(self) -> int:
        """About how many requests the execution takes."""
        return REQUESTS_PER_HISTORY * len(self._histories) + -(-len(self._histories) // 200)

    @property
    def _histories(self) -> list[PlannedRun]:
        return [run for run in self.runs if run.reads_history]

    def __str__(self) -> str:
        reasons = Counter(run.reason for run in self.runs)
        why = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()))
        gone = f", {len(self.deleted)} deleted" if self.deleted else ""
        gone += f", {self.hidden} counted but not listed" if self.hidden else ""
        return (
            f"{self.mode} export of {self.request.owner} into {self.request.dataset_name}: "
            f"{self.listed} runs listed, {self.unchanged} unchanged{gone}; "
            f"{len(self.runs)} to write ({why or 'none'}), "
            f"{len(self._histories)} histories with {self.history_rows:,} rows, "
            f"about {self.requests} requests"
        )


def plan_export(request: ExportRequest, api: Api, warehouse: Warehouse) -> ExportPlan:
    """Compare the server's listing with what the warehouse holds.

    Costs one request for 1,000 listed runs, and one for 200 runs that must be looked at again.

    Raises:
        CommError: by the table in `errors`; NotFound for a missing project (retry: never).
        WarehouseError: the warehouse would refuse the export, or cannot be read.
    """
    warehouse.check(request.dataset_name, request.owner)
    state = read_state(request, warehouse)
    source = api.source(str(request.owner))
    now = datetime.now(UTC)
    mode = _mode(request, state, now)
    counts: list[int] = []
    changed = list(_list(request, source, state, mode, counts.append))
    again = _again(request, source, state, mode, changed)
    nodes = {node["name"]: node for node in (*changed, *again)}
    deleted = _deleted(request, source, state, mode, nodes)
    planned = (_planned(request, node, state, mode) for node in nodes.values())
    return ExportPlan(
        request=request,
        plan_id=f"{now:%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:8]}",
        mode=mode,
        runs=tuple(run for run in planned if run is not None),
        deleted=deleted,
        listed=len(nodes),
        hidden=max(0, max(counts, default=0) - len(changed)),
        before=state.marks,
        after=_marks_after(request, state.marks, mode, nodes.values(), now),
        planned_at=now,
    )


def _mode(request: ExportRequest, state: ExportState, now: datetime) -> Mode:
    if request.mode != "incremental":
        return request.mode
    marks = state.marks
    if request.is_window or marks.watermark is None or marks.reconciled_at is None:
        return "reconcile"
    due = marks.reconciled_at + timedelta(hours=request.reconcile_every_h)
    return "reconcile" if now >= due else "incremental"


def _list(
    request: ExportRequest,
    source: RunSource,
    state: ExportState,
    mode: Mode,
    on_count: Callable[[int], None],
) -> Iterator[Node]:
    """The whole listing, or what moved since the watermark."""
    watermark = state.marks.watermark
    if mode != "incremental" or watermark is None:
        narrow = _window(request)
    else:
        since = _iso(watermark - OVERLAP)
        narrow = {"$or": [{"heartbeatAt": {"$gte": since}}, {"createdAt": {"$gte": since}}]}
    return source.iter_nodes(_all_of(request.filters, narrow), on_count=on_count)


def _again(
    request: ExportRequest,
    source: RunSource,
    state: ExportState,
    mode: Mode,
    listed: Iterable[Node],
) -> Iterable[Node]:
    """Runs that may have changed without a sign of it: not settled, or written by a backfill."""
    if mode != "incremental":
        return ()
    seen = {node["name"] for node in listed}
    wanted = sorted((state.unsettled | state.backfilled) - seen)
    return source.fetch_nodes(wanted, request.filters).values()


def _all_of(*filters: Mapping[str, Any]) -> dict[str, Any]:
    wanted = [dict(one) for one in filters if one]
    return {"$and": wanted} if len(wanted) > 1 else next(iter(wanted), {})


def _window(request: ExportRequest) -> dict[str, Any]:
    bounds = {"$gte": request.since, "$lt": request.until}
    chosen = {operator: _iso(moment) for operator, moment in bounds.items() if moment is not None}
    return {"createdAt": chosen} if chosen else {}


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _marks_after(
    request: ExportRequest, before: Marks, mode: Mode, nodes: Iterable[Node], now: datetime
) -> Marks:
    if request.is_window:
        return before
    moments = [
        parse_server_time(text)
        for node in nodes
        for text in (node.get("heartbeatAt"), node.get("createdAt"))
        if text
    ]
    if before.watermark is not None:
        moments.append(before.watermark)
    # A run with a clock of its own must not carry the watermark past what was looked at.
    moments = [min(moment, now) for moment in moments]
    reconciled_at = before.reconciled_at if mode == "incremental" else now
    return Marks(max(moments, default=None), reconciled_at, now)


def _deleted(
    request: ExportRequest,
    source: RunSource,
    state: ExportState,
    mode: Mode,
    nodes: Mapping[str, Node],
) -> tuple[str, ...]:
    """Runs that the warehouse holds and the server has no more.

    Concluded only where the listing is that of the whole project, and asked for by id again: a
    run can be missing from a listing that moves while it is read.
    """
    if mode == "incremental" or request.is_window or request.filters:
        return ()
    held = {run_id for run_id, known in state.runs.items() if known.status != "deleted"}
    missing = sorted(held - set(nodes))
    still_there = source.fetch_nodes(missing)
    return tuple(run_id for run_id in missing if run_id not in still_there)


def _planned(
    request: ExportRequest, node: Node, state: ExportState, mode: Mode
) -> PlannedRun | None:
    run_id = node["name"]
    known_run, known_history = state.runs.get(run_id), state.history.get(run_id)
    if known_run is None or known_history is None or not known_history.fingerprint:
        before = f"{known_history.status} before" if known_history else "new"
        return PlannedRun(node, before, True, request.keys)
    held = Fingerprint.loads(known_history.fingerprint)
    keys = wider_keys(held.keys, request.keys)
    if reason := _history_reason(known_history, held, fingerprint(node, request.keys), mode):
        return PlannedRun(node, reason, True, keys, known_history.row)
    if known_run.fingerprint != _content_hash(request, node) or known_run.status == "deleted":
        return PlannedRun(node, "edited", False, keys)
    return None


def _content_hash(request: ExportRequest, node: Node) -> str | None:
    try:
        return run_row(node, entity=request.entity, project=request.project).content_hash
    except ValueError:
        # A document that cannot be read: the execution writes a receipt that says so.
        return None


def _history_reason(known: Known, held: Fingerprint, now: Fingerprint, mode: Mode) -> str | None:
    if mode == "full":
        return "read again"
    if known.status in ("failed", "unexplained"):
        return f"{known.status} before"
    if held.covers(now):
        return None
    if now.origin != held.origin:
        return "made anew"
    if now.left_running and not held.left_running:
        return "finished"
    return "grown" if now.lines >= held.lines else "rewritten"
