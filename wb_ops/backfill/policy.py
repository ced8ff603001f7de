"""What is done to a value, and why it is not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow.compute as pc

from wb_ops.backfill.journal import Entry, Event
from wb_ops.backfill.planned import Action
from wb_ops.backfill.request import BackfillRequest
from wb_ops.backfill.targets import Target, read_values
from wb_ops.backfill.values import INCOMPLETE
from wb_ops.client.comparison import holds, same_json
from wb_ops.client.source import Node
from wb_ops.errors import MalformedResponse
from wb_ops.tables.fingerprints import Fingerprint, fingerprint
from wb_ops.tables.runs import OPEN_STATES, server_time
from wb_ops.warehouse import Warehouse

NO_RUN = "no such run"
OUTSIDE = "outside the filters"
UNLISTED = "the server cannot give the run"
Decision = tuple[Action, str]


def why_not(request: BackfillRequest, node: Node | None) -> str:
    """Why a run is not written to at all, or an empty text."""
    if node is None:
        return OUTSIDE if request.filters else NO_RUN
    if node.get("readOnly"):
        return "read-only"
    if node.get("state") in OPEN_STATES and not request.include_running:
        return str(node["state"])
    return ""


def refusal(node: Node, target: Target, *, include_running: bool) -> tuple[Event, str] | None:
    """What becomes of a run's values if it may not be written to any more, read anew."""
    if node.get("readOnly"):
        return "failed", "read-only"
    if node.get("state") in OPEN_STATES and not include_running:
        return "conflict", f"{node['state']} again"
    try:
        read_values(node, target)
    except MalformedResponse:
        return "failed", "unreadable"
    return None


def decide(
    request: BackfillRequest, node: Node, old: str | None, new: str | None, ours: Entry | None
) -> Decision:
    """What to do with a value of a run that may be written to.

    `ours` is what a backfill wrote there last.
    """
    if same_json(old, new):
        return "unchanged", ""
    if old is None or request.policy == "overwrite":
        return "set", ""
    if request.policy == "only_missing":
        return "skipped", "has a value"
    return _decide_by_age(node, old, ours)


def _decide_by_age(node: Node, old: str, ours: Entry | None) -> Decision:
    if ours is None:
        return "skipped", "not written by a backfill"
    if not holds(old, ours.new):
        return "conflict", "changed by another writer since it was written"
    try:
        logged_at = server_time(node, "heartbeatAt")
    except ValueError:
        return "skipped", "unreadable"
    if logged_at is None or logged_at <= ours.recorded_at:
        return "skipped", "newer than the run"
    return "set", ""


def stale_histories(
    request: BackfillRequest, warehouse: Warehouse, nodes: Mapping[str, Node]
) -> dict[str, str]:
    """Runs whose rows in the warehouse are not what the server has now: run id -> why.

    By the receipts of the exports. A dataset without any receipt of a history has no history that
    its SQL could read: nothing is said of it.
    """
    receipts = warehouse.read_tables(request.dataset_name, ["_wb_receipts"])["_wb_receipts"]
    of_histories = receipts.filter(pc.equal(receipts["table_name"], "history"))
    asked = of_histories.select(["run_id", "status", "fingerprint"])
    held = {row["run_id"]: row for row in asked.to_pylist()}
    if not held:
        return {}
    reasons = {run_id: _why_stale(held.get(run_id), node) for run_id, node in nodes.items()}
    return {run_id: why for run_id, why in reasons.items() if why}


def _why_stale(receipt: Mapping[str, Any] | None, node: Node) -> str:
    if receipt is None or receipt["status"] not in ("complete", "growing"):
        return INCOMPLETE
    then = Fingerprint.loads(receipt["fingerprint"])
    now = fingerprint(node, then.keys, redacted=then.redacted)
    # "growing" of a run that has ended: a commit found it changed since its rows were read.
    is_whole = receipt["status"] == "complete" or not then.left_running
    return "" if is_whole and then.covers(now) else "history older than the run"
