"""Plans that come out of the journal: taking a backfill back, or finishing one that was killed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from wb_ops.backfill.journal import FINAL, Entry, read_entries
from wb_ops.backfill.planned import Action, PlannedValue
from wb_ops.backfill.policy import NO_RUN, why_not
from wb_ops.backfill.request import BackfillRequest
from wb_ops.backfill.targets import read_values
from wb_ops.client.source import Node, RunSource
from wb_ops.client.writing import same_json
from wb_ops.errors import MalformedResponse
from wb_ops.warehouse import Warehouse

CHANGED = "changed by another writer since"


def planned_again(
    request: BackfillRequest, source: RunSource, warehouse: Warehouse
) -> tuple[str | None, Sequence[PlannedValue]]:
    """Return the values of an undo, or those that a killed backfill has left.

    One request for 200 runs. The id is that of the resumed backfill; an undo is a backfill of
    its own, which can be undone too.

    Raises:
        InvalidRequest: there is no such backfill (retry: never).
    """
    backfill_id = request.undo or request.resume or ""
    entries = read_entries(warehouse, request.dataset_name, backfill_id)
    if request.undo:
        # A value without an outcome may have been written: what the run holds decides.
        wanted = [
            replace(entry, old=entry.new, new=entry.old)
            for entry in entries
            if entry.event not in FINAL or entry.event == "written"
        ]
    else:
        wanted = [entry for entry in entries if entry.event not in FINAL]
    nodes = source.fetch_nodes(sorted({entry.run_id for entry in wanted}))
    planned = list(_planned(request, wanted, nodes))
    return (None if request.undo else backfill_id), planned


def _planned(
    request: BackfillRequest, wanted: Sequence[Entry], nodes: dict[str, Node]
) -> Iterator[PlannedValue]:
    for entry in wanted:
        node = nodes.get(entry.run_id)
        action, reason = _decide(request, entry, node)
        yield PlannedValue(
            entry.run_id, entry.key, entry.old, entry.new, action, reason, entry.target
        )


def _decide(request: BackfillRequest, entry: Entry, node: Node | None) -> tuple[Action, str]:
    if node is None:
        return "skipped", NO_RUN
    if why := why_not(request, node):
        return "skipped", why
    try:
        now = read_values(node, entry.target).get(entry.key)
    except MalformedResponse:
        return "skipped", "unreadable"
    if same_json(now, entry.old) or (request.resume and same_json(now, entry.new)):
        # A resumed value that is there already was written before the kill: it is recorded.
        return "set", ""
    return ("unchanged", "") if same_json(now, entry.new) else ("conflict", CHANGED)
