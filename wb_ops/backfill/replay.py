"""Plans that come out of the journal: taking a backfill back, or finishing one that was killed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from dataclasses import replace

from wb_ops.backfill.journal import FINAL, OF_OTHERS, Entry, read_entries
from wb_ops.backfill.lookup import Found, look_up
from wb_ops.backfill.planned import OWED, PlannedValue
from wb_ops.backfill.policy import UNLISTED, why_not
from wb_ops.backfill.request import BackfillRequest
from wb_ops.backfill.targets import read_values
from wb_ops.client.comparison import holds, same_json
from wb_ops.client.source import Node, RunSource
from wb_ops.errors import MalformedResponse
from wb_ops.warehouse import Warehouse

CHANGED = "changed by another writer since"
IS_OWED = "another writer's value is owed there: resume first"
PUT_BACK = "changed by another writer while we wrote: put back"


def planned_again(
    request: BackfillRequest, source: RunSource, warehouse: Warehouse
) -> tuple[str | None, Sequence[PlannedValue]]:
    """Return the values of an undo, or those that a killed backfill has left.

    One request for 200 runs. The id is that of the resumed backfill; an undo is a backfill of
    its own, which can be undone too.

    Raises:
        InvalidRequest: there is no such backfill (retry: never).
        CommError: by the table in `errors`; also where not one of the runs can be read.
    """
    backfill_id = request.undo or request.resume or ""
    entries = read_entries(warehouse, request.dataset_name, backfill_id)
    if request.undo:
        # A value without an outcome may have been written: what the run holds decides.
        wanted = [
            replace(entry, old=entry.new, new=entry.old)
            for entry in entries
            if entry.event == "written" or entry.event not in FINAL | OF_OTHERS
        ]
    else:
        wanted = [entry for entry in entries if entry.event not in FINAL]
    owed = {(entry.run_id, entry.key) for entry in entries if entry.event == "owed"}
    found = look_up(source, sorted({entry.run_id for entry in wanted}))
    if found.broken and not found.nodes:
        raise next(iter(found.broken.values()))
    planned = list(_planned(request, wanted, found, owed))
    return (None if request.undo else backfill_id), planned


def _planned(
    request: BackfillRequest, wanted: Sequence[Entry], found: Found, owed: Set[tuple[str, str]]
) -> Iterator[PlannedValue]:
    for entry in wanted:
        value = PlannedValue(
            entry.run_id, entry.key, entry.old, entry.new, "skipped", target=entry.target
        )
        node = found.nodes.get(entry.run_id)
        is_broken = entry.run_id in found.broken
        why = UNLISTED if is_broken else why_not(request, node)
        if entry.event == "owed" and not is_broken:
            yield _decided_of_others(value, node)
        elif why or node is None:
            yield replace(value, reason=why)
        elif (entry.run_id, entry.key) in owed:
            yield _decided_owed(request, value)
        else:
            yield _decided(request, value, node)


def _decided_of_others(value: PlannedValue, node: Node | None) -> PlannedValue:
    """A member of another writer: whether it is still to be put back is seen when we write."""
    if node is not None and node.get("readOnly"):
        return replace(value, reason="read-only")
    return replace(value, action="put_back", reason=OWED)


def _decided_owed(request: BackfillRequest, value: PlannedValue) -> PlannedValue:
    """A value of ours in whose place another writer's one belongs."""
    if request.undo:
        return replace(value, reason=IS_OWED)
    return replace(value, action="conflict", reason=PUT_BACK)


def _decided(request: BackfillRequest, value: PlannedValue, node: Node) -> PlannedValue:
    try:
        now = read_values(node, value.target).get(value.key)
    except MalformedResponse:
        return replace(value, reason="unreadable")
    if request.undo and holds(now, value.old):
        # Ours, in the form in which the server gives it.
        return replace(value, action="set", old=now)
    if request.resume and (same_json(now, value.old) or holds(now, value.new)):
        # A value that is there already was written before the kill: it is recorded.
        return replace(value, action="set")
    if same_json(now, value.new):
        return replace(value, action="unchanged")
    return replace(value, action="conflict", reason=CHANGED)
