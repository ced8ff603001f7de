"""Runs that are not written at a commit, changed since the plan or gone: their receipts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from wb_ops.export.decide import CHANGED, content_hash
from wb_ops.export.receipts import Receipt, kept
from wb_ops.export.request import ExportRequest
from wb_ops.export.sealed import Sealed
from wb_ops.export.state import Receipts
from wb_ops.tables.fingerprints import Fingerprint, fingerprint, system_fingerprint


def marked(
    skipped: Sequence[Sealed], held: Mapping[str, Receipts], request: ExportRequest
) -> list[Receipt]:
    """Receipts that make the next export look at runs that were not written.

    A run has none where what another load wrote is all that was asked for.
    """
    notes = []
    for one in skipped:
        for table_name in sorted({"runs", *(receipt.table_name for receipt in one.receipts)}):
            receipts = held[table_name]
            if not _holds(receipts, table_name, one, request):
                known = receipts.whole(one.run_id)
                notes.append(kept(one.run_id, known, table_name, status="growing", note=CHANGED))
    return notes


def deleted(
    run_ids: Iterable[str], held: Mapping[str, Receipts], request: ExportRequest
) -> list[Receipt]:
    """Receipts that say that runs are gone; their rows stay, and are counted as before."""
    tables = sorted({"runs", "history", *request.tables})
    # Without a fingerprint: a run that is made anew under the same id is read anew.
    gone: dict[str, Any] = {"status": "deleted", "fingerprint": "", "note": None}
    return [
        kept(run_id, held[name].whole(run_id), name, **gone)
        for run_id in run_ids
        for name in tables
    ]


def _holds(receipts: Receipts, table_name: str, one: Sealed, request: ExportRequest) -> bool:
    """Whether the warehouse has what was read of the run for a table, or more."""
    text = receipts.fingerprint(one.run_id)
    if one.node is None or not text:
        return False
    if table_name == "runs":
        return text == content_hash(request, one.node)
    if table_name == "system_metrics":
        return text == system_fingerprint(one.node)
    now = fingerprint(one.node, one.keys, redacted=request.redact_secrets)
    return Fingerprint.loads(text).covers(now)
