"""Which runs an export asks the server for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Set
from datetime import datetime
from typing import Any

from wb_ops.client.filters import all_of
from wb_ops.client.listing import OnBroken
from wb_ops.client.source import IDS_PER_REQUEST, Node, RunSource
from wb_ops.errors import CommError
from wb_ops.export.request import ExportRequest, Mode
from wb_ops.export.state import OVERLAP, ExportState, Marks
from wb_ops.tables.times import filter_time
from wb_ops.warehouse import Warehouse


def iter_listed(
    request: ExportRequest,
    source: RunSource,
    marks: Marks,
    mode: Mode,
    after_created: datetime | None,
    on_count: Callable[[int], None],
    on_broken: OnBroken,
) -> Iterator[Node]:
    """Yield the whole listing, the named runs, or what moved since the watermark; lazily.

    `after_created` goes on with a listing that ended early: it is in the order of creation.
    """
    start = {"createdAt": {"$gte": filter_time(after_created)}} if after_created else {}
    if request.run_ids is not None:
        chosen = sorted(set(request.run_ids))
        wanted = all_of(scope_filters(request), window_filters(request), start)
        for at in range(0, len(chosen), IDS_PER_REQUEST):
            some = chosen[at : at + IDS_PER_REQUEST]
            yield from source.fetch_nodes(some, wanted, on_broken).values()
        return
    narrow = _moved(marks, source) if mode == "incremental" else window_filters(request)
    wanted = all_of(scope_filters(request), narrow, start)
    yield from source.iter_nodes(wanted, on_count=on_count, on_broken=on_broken)


def fetch_again(
    request: ExportRequest,
    source: RunSource,
    state: ExportState,
    mode: Mode,
    seen: Set[str],
    on_broken: OnBroken,
) -> Iterable[Node]:
    """Runs that may have changed without a sign of it: not settled, or written by a backfill."""
    if mode != "incremental":
        return ()
    wanted = sorted(state.again(request.tables) - seen)
    return source.fetch_nodes(wanted, scope_filters(request), on_broken).values()


def find_deleted(
    request: ExportRequest,
    source: RunSource,
    warehouse: Warehouse,
    state: ExportState,
    mode: Mode,
    seen: Set[str],
    on_broken: OnBroken,
) -> tuple[str, ...]:
    """Runs that the warehouse holds and the server has no more.

    Concluded only where the listing is that of the whole project, of a window of creation, or of
    named runs, and asked for by id again: a run can be missing from a listing that moves while
    it is read. A run that is there and cannot be given is not gone.
    """
    held = state.receipts["runs"].present
    if request.run_ids is not None:
        held &= set(request.run_ids)
    elif mode == "incremental" or request.filters or request.states:
        return ()
    elif request.is_partial and held:
        # When a run was created never changes, so the window holds the same runs as before.
        held &= _created_inside(request, warehouse)
    missing = sorted(held - seen)
    broken: dict[str, CommError] = {}
    still_there = {*source.fetch_nodes(missing, on_broken=broken.__setitem__), *broken}
    for run_id, error in broken.items():
        on_broken(run_id, error)
    return tuple(run_id for run_id in missing if run_id not in still_there)


def _created_inside(request: ExportRequest, warehouse: Warehouse) -> set[str]:
    """The runs of the window that the warehouse holds."""
    bounds = {">=": request.since, "<": request.until}
    inside = " and ".join(
        f"created_at {operator} timestamptz '{filter_time(moment)}'"
        for operator, moment in bounds.items()
        if moment is not None
    )
    held = warehouse.query(f"select run_id from runs where {inside}", request.dataset_name)
    return set(held["run_id"].to_pylist())


def scope_filters(request: ExportRequest) -> dict[str, Any]:
    """The request's filters and states as one filter."""
    states = {"state": {"$in": sorted(request.states)}} if request.states else {}
    return all_of(request.filters, states)


def whole_filters(request: ExportRequest) -> dict[str, Any]:
    """The filter of the whole listing: the request's scope inside its window."""
    return all_of(scope_filters(request), window_filters(request))


def _moved(marks: Marks, source: RunSource) -> dict[str, Any]:
    if marks.watermark is None:
        return {}
    since = filter_time(marks.watermark - OVERLAP)
    signs = [{"heartbeatAt": {"$gte": since}}, {"createdAt": {"$gte": since}}]
    if marks.reconciled_at is not None and source.filters_on_time("updatedAt"):
        # An edit moves no heartbeat, so the watermark may stay for long; and it is not lost by an
        # export to which the server did not answer this question.
        signs.append({"updatedAt": {"$gte": filter_time(marks.reconciled_at - OVERLAP)}})
    return {"$or": signs}


def window_filters(request: ExportRequest) -> dict[str, Any]:
    """The request's window as a filter."""
    bounds = {"$gte": request.since, "$lt": request.until}
    chosen = {
        operator: filter_time(moment) for operator, moment in bounds.items() if moment is not None
    }
    return {"createdAt": chosen} if chosen else {}
