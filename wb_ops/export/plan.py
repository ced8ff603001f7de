"""Decides what an export will read, from the listing and the warehouse's state.

Writes nothing into the warehouse.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from wb_ops.client.api import Api
from wb_ops.client.paging import MAX_PAGE_SIZE
from wb_ops.client.source import Node
from wb_ops.errors import CommError
from wb_ops.export.decide import cleaned, decide
from wb_ops.export.draft import Draft
from wb_ops.export.folder import open_folder
from wb_ops.export.listing import fetch_again, find_deleted, iter_listed
from wb_ops.export.parts import Listed, chunked
from wb_ops.export.planned import ExportPlan
from wb_ops.export.request import ExportRequest, Mode
from wb_ops.export.state import ExportState, Marks, read_state
from wb_ops.warehouse import Warehouse


def plan_export(
    request: ExportRequest, api: Api, warehouse: Warehouse, folder: str | None = None
) -> ExportPlan:
    """Compare the server's listing with what the warehouse holds.

    Costs one request for 1,000 listed runs, one for 200 runs that must be looked at again, and,
    where it is incremental, one that finds out whether the server filters on `updatedAt`.

    Args:
        request: what to export.
        api: the W&B server.
        warehouse: where to.
        folder: a local path or fsspec URL below which the plan is kept, page by page; one of the
            same request that was killed within the last day is continued. None: in memory.

    Raises:
        CommError: by the table in `errors`; NotFound for a missing project (retry: never).
        WarehouseError: the warehouse would refuse the export, or cannot be read.
    """
    traffic, budget = api.transport.traffic, api.transport.budget
    sent, busy_s = traffic.requests, traffic.busy_s
    state = read_state(request, warehouse)
    now = datetime.now(UTC)
    mode = _mode(request, state.marks, now)
    base_url = api.transport.settings.base_url
    staging = None if folder is None else open_folder(folder)
    draft = Draft.start(request, base_url, mode, state.marks, now, staging)
    source = api.source(str(request.owner))
    counts: list[int] = []
    broken: dict[str, CommError] = {}
    note = broken.__setitem__
    nodes = iter_listed(
        request, source, draft.before, draft.mode, draft.last_created, counts.append, note
    )
    for page in chunked(_decided(request, nodes, state, draft), MAX_PAGE_SIZE):
        draft.add(page, max(counts, default=0))
    # A page whose runs are all hidden still says how many there are.
    draft.count = max([draft.count, *counts])
    listed = draft.listed
    again = fetch_again(request, source, state, draft.mode, draft.seen, note)
    draft.add(list(_decided(request, iter(again), state, draft)), 0)
    present = {*draft.seen, *broken}
    deleted = find_deleted(request, source, warehouse, state, draft.mode, present, note)
    return draft.finish(
        deleted=deleted,
        hidden=max(0, draft.count - listed),
        broken=tuple(broken),
        seconds_per_request=(traffic.busy_s - busy_s) / max(1, traffic.requests - sent),
        wait_s=budget.wait_s,
        quota=budget.quota,
    )


def _decided(
    request: ExportRequest, nodes: Iterator[Node], state: ExportState, draft: Draft
) -> Iterator[Listed]:
    for node in nodes:
        if node["name"] not in draft.seen:
            draft.seen.add(node["name"])
            clean = cleaned(request, node)
            yield Listed(clean, decide(request, clean, state, draft.mode))


def _mode(request: ExportRequest, marks: Marks, now: datetime) -> Mode:
    if request.mode != "incremental":
        return request.mode
    if request.is_partial or marks.watermark is None or marks.reconciled_at is None:
        return "reconcile"
    due = marks.reconciled_at + timedelta(hours=request.reconcile_every_h)
    return "reconcile" if now >= due else "incremental"
