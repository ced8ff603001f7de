"""Runs that changed between a plan and its commit: what the warehouse is told of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from wb_ops.export.receipts import CHANGED, Receipt, kept
from wb_ops.export.request import ExportRequest
from wb_ops.export.sealed import Sealed
from wb_ops.export.state import Receipts
from wb_ops.tables.fingerprints import Fingerprint, fingerprint


def marked(
    skipped: Sequence[Sealed], held: Mapping[str, Receipts], request: ExportRequest
) -> list[Receipt]:
    """Receipts that make the next export look at runs that were not written.

    A run has none where what another load wrote is all that was asked for.
    """
    notes = []
    for one in skipped:
        for table_name in sorted({receipt.table_name for receipt in one.receipts} or {"runs"}):
            receipts = held[table_name]
            if table_name == "history" and _covers(receipts, one, request):
                continue
            known = receipts.whole(one.run_id)
            notes.append(kept(one.run_id, known, table_name, status="growing", note=CHANGED))
    return notes


def _covers(receipts: Receipts, one: Sealed, request: ExportRequest) -> bool:
    text = receipts.fingerprint(one.run_id)
    if one.node is None or not text:
        return False
    now = fingerprint(one.node, one.keys, redacted=request.redact_secrets)
    return Fingerprint.loads(text).covers(now)
