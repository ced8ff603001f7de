"""What has to be read and written of one run: its state on the server against its receipts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from wb_ops.client.source import Node
from wb_ops.export.request import ExportRequest, Mode
from wb_ops.export.state import ExportState, Receipts
from wb_ops.tables.fingerprints import (
    Fingerprint,
    fingerprint,
    system_fingerprint,
    wider_keys,
)
from wb_ops.tables.runs import run_row
from wb_ops.tables.secrets import redacted
from wb_ops.tables.values import parse_json

# The note of an unexplained history of which a second reading gave nothing else.
AS_BEFORE = "read again, with the same result"
# The note of a run that a commit left as another load wrote it.
CHANGED = "changed since the plan; the next export reads it"


@dataclass(frozen=True, slots=True)
class PlannedRun:
    """One run to write, why, and what is read for it.

    Attributes:
        reads_history, reads_system: which rows are read from W&B.
        keys: metrics to read, None for all.
        tail_from: of a run that goes on logging, the step from which its rows are read.
        held: the last receipt of its history, if there is one.
        written_by: the load that wrote the run last; another one at the commit is a newer one.
    """

    node: Node = field(repr=False)
    reason: str
    reads_history: bool
    keys: tuple[str, ...] | None = None
    held: Mapping[str, Any] | None = field(default=None, repr=False)
    reads_system: bool = False
    tail_from: int | None = None
    written_by: str | None = None

    @property
    def run_id(self) -> str:
        """The run's id."""
        return str(self.node["name"])

    @property
    def reads_rows(self) -> bool:
        """Whether more than the run itself is read."""
        return self.reads_history or self.reads_system

    @property
    def history_rows(self) -> int:
        """About how many history rows are read, by the server's count."""
        if not self.reads_history:
            return 0
        rows = int(self.node.get("historyLineCount") or 0)
        if self.tail_from is not None and self.held is not None:
            rows -= int(self.held.get("rows_read") or 0)
        return max(0, rows)


def decide(request: ExportRequest, node: Node, state: ExportState, mode: Mode) -> PlannedRun | None:
    """Plan one listed run; None where nothing has to be written."""
    run_id = node["name"]
    held = state.receipts["history"]
    reason, reads_history, keys, is_tail = _history(request, node, held, mode)
    system_reason = _system(request, node, state, mode)
    reason = reason or system_reason or _edit(request, node, state)
    if reason is None:
        return None
    receipt = held.whole(run_id)
    return PlannedRun(
        node=node,
        reason=reason,
        reads_history=reads_history,
        keys=keys,
        held=receipt,
        reads_system=system_reason is not None or (reads_history and _has_system(request)),
        tail_from=receipt["last_step"] if receipt and is_tail else None,
        written_by=state.receipts["runs"].load_id(run_id),
    )


def cleaned(request: ExportRequest, node: Node) -> Node:
    """The run without what looks like a secret, if the request says so."""
    if not request.redact_secrets:
        return node
    return {**node, **{name: _redacted(node.get(name)) for name in ("config", "summaryMetrics")}}


def _redacted(text: str | None) -> str | None:
    if not text:
        return text
    try:
        return json.dumps(redacted(parse_json(text)))
    except ValueError:
        # No JSON: it is not stored either, its receipt says so.
        return text


_Decision = tuple[str | None, bool, tuple[str, ...] | None, bool]


def _history(request: ExportRequest, node: Node, held: Receipts, mode: Mode) -> _Decision:
    """Reason, whether the history is read, its keys, and whether only its end is read."""
    if "history" not in request.tables:
        return None, False, request.keys, False
    status, text = held.status(node["name"]), held.fingerprint(node["name"])
    if not text:
        return f"{status} before" if status else "new", True, request.keys, False
    then = Fingerprint.loads(text)
    keys = wider_keys(then.keys, request.keys)
    now = fingerprint(node, request.keys, redacted=request.redact_secrets)
    is_as_before = status == "unexplained" and then.covers(now)
    if is_as_before and _is_known_gap(request, held.whole(node["name"]), mode):
        return None, False, keys, False
    reason = _history_reason(str(status), then, now, mode)
    if reason is None:
        return None, False, keys, False
    return reason, True, keys, reason == "grown" and keys == then.keys and then.is_continued_by(now)


def _is_known_gap(request: ExportRequest, receipt: Mapping[str, Any] | None, mode: Mode) -> bool:
    """Whether reading an unexplained history once more is left to the next reconcile."""
    is_quiet = mode == "incremental" and request.on_incomplete == "mark"
    return is_quiet and receipt is not None and receipt["note"] == AS_BEFORE


def _history_reason(status: str, held: Fingerprint, now: Fingerprint, mode: Mode) -> str | None:
    if mode == "full":
        return "read again"
    if status in ("failed", "unexplained"):
        return f"{status} before"
    if held.covers(now):
        # Marked at a commit that found the run changed since its plan.
        return "changed before" if status == "growing" and held.left_running else None
    if now.origin != held.origin:
        return "made anew"
    if now.left_running and not held.left_running:
        return "finished"
    return "grown" if now.lines >= held.lines else "rewritten"


def _has_system(request: ExportRequest) -> bool:
    return "system_metrics" in request.tables


def _system(request: ExportRequest, node: Node, state: ExportState, mode: Mode) -> str | None:
    if not _has_system(request):
        return None
    held = state.receipts["system_metrics"]
    status = held.status(node["name"])
    if status is None:
        return "new"
    if mode == "full":
        return "read again"
    is_same = held.fingerprint(node["name"]) == system_fingerprint(node)
    if status == "failed" or not is_same or is_marked(held, node["name"]):
        return "system metrics"
    return None


def _edit(request: ExportRequest, node: Node, state: ExportState) -> str | None:
    held = state.receipts["runs"]
    status = held.status(node["name"])
    if status is None:
        return "new"
    is_same = held.fingerprint(node["name"]) == content_hash(request, node)
    is_settled = status != "deleted" and not is_marked(held, node["name"])
    return None if is_same and is_settled else "edited"


def is_marked(receipts: Receipts, run_id: str) -> bool:
    """Whether a commit found that another load had written the run since the plan.

    It is written once more, whatever it holds: else its receipt would never be settled.
    """
    receipt = receipts.whole(run_id) if receipts.status(run_id) == "growing" else None
    return receipt is not None and receipt["note"] == CHANGED


def content_hash(request: ExportRequest, node: Node) -> str | None:
    """The fingerprint of a run's row; None where the row cannot be made."""
    try:
        return run_row(node, entity=request.entity, project=request.project).content_hash
    except ValueError:
        # A document that cannot be read: the execution writes a receipt that says so.
        return None
