"""The proof of each export: what was read, against what the server counts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from wb_ops.client.history import adds_up
from wb_ops.client.source import Node
from wb_ops.errors import CommError
from wb_ops.export.decide import AS_BEFORE, PlannedRun
from wb_ops.export.staged import StagedHistory, StagedRun
from wb_ops.tables.fingerprints import Fingerprint, fingerprint, system_fingerprint
from wb_ops.tables.runs import OPEN_STATES, last_step
from wb_ops.tables.schemas import RECEIPTS

Status = Literal["complete", "growing", "unexplained", "failed", "deleted"]


@dataclass(frozen=True, slots=True)
class Receipt:
    """How one run's rows in a table were checked.

    `complete`: every row the server counts is there and the run has ended. `growing`: the run
    still writes, or has changed since it was read. `unexplained`: the counts differ and nothing
    explains it. `failed`: it could not be read, `note` says why; the counts are those of the rows
    that are held from before. `deleted`: the run is gone on the server, its rows stay.
    """

    run_id: str
    status: Status
    rows_read: int = 0
    distinct_steps: int = 0
    overwritten_cells: int = 0
    first_step: int | None = None
    last_step: int | None = None
    server_rows: int | None = None
    server_last_step: int | None = None
    source: str | None = None
    size_bytes: int = 0
    fingerprint: str = ""
    left_running: bool = False
    note: str | None = None
    table_name: str = "history"

    @property
    def is_sound(self) -> bool:
        """Whether the warehouse holds what it should of this run."""
        return self.status not in ("unexplained", "failed")


def receipts_of(staged: StagedRun, after: Node | None, *, redacted: bool) -> list[Receipt]:
    """One receipt for each table that was read; `after` are the counters, read after the rows."""
    receipts = []
    planned = staged.planned
    if planned.reads_history:
        receipts.append(_history_receipt(staged, after, redacted=redacted))
    if planned.reads_system:
        receipts.append(_system_receipt(staged, after))
    return receipts


def runs_receipt(run_id: str, state: str | None, content_hash: str, note: str | None) -> Receipt:
    """The receipt of a row of `runs`; one of a run that goes on is looked at again."""
    has_ended = state not in OPEN_STATES
    return Receipt(
        run_id,
        "complete" if has_ended else "growing",
        rows_read=1,
        fingerprint=content_hash,
        left_running=has_ended,
        note=note,
        table_name="runs",
    )


def kept(run_id: str, held: Mapping[str, Any] | None, table_name: str, **changes: Any) -> Receipt:
    """What is held, with a word about why it is not what was wanted."""
    if held is None:
        return Receipt(run_id, table_name=table_name, **changes)
    known = {name: held[name] for name in Receipt.__slots__ if name in held}
    return Receipt(**{**known, **changes})


def receipts_table(receipts: Iterable[Receipt], load_id: str, checked_at: datetime) -> pa.Table:
    """Rows of `_wb_receipts`; of two for one run and table the later stays."""
    common = {"load_id": load_id, "checked_at": checked_at}
    rows = {(one.run_id, one.table_name): {**to_row(one), **common} for one in receipts}
    return pa.Table.from_pylist(list(rows.values()), schema=RECEIPTS)


def receipts_of_load(table: pa.Table, load_id: str) -> list[Receipt]:
    """The receipts among the rows of `_wb_receipts` that this load wrote last."""
    rows = table.filter(pc.equal(table["load_id"], load_id)).to_pylist()
    return [Receipt(**{name: row[name] for name in Receipt.__slots__}) for row in rows]


def to_row(one: Receipt) -> dict[str, Any]:
    """The receipt's columns."""
    return {name: getattr(one, name) for name in Receipt.__slots__}


def _history_receipt(staged: StagedRun, after: Node | None, *, redacted: bool) -> Receipt:
    planned, history = staged.planned, staged.history
    if after is None:
        return Receipt(staged.run_id, "deleted", note="deleted while it was read")
    if history is None:
        return _failed(planned, planned.held, staged.error, "history")
    now = fingerprint(after, planned.keys, redacted=redacted)
    receipt = Receipt(
        run_id=staged.run_id,
        status=_status(history, after),
        rows_read=history.counts.rows_read,
        distinct_steps=history.counts.distinct_steps,
        overwritten_cells=history.counts.overwritten_cells,
        first_step=history.counts.first_step,
        last_step=history.counts.last_step,
        server_rows=now.lines,
        server_last_step=now.last_step,
        source=history.source,
        size_bytes=history.size_bytes,
        fingerprint=_held(now, history.counts.rows_read).dumps(),
        left_running=now.left_running,
    )
    if receipt.status == "unexplained" and _is_as_before(receipt, planned.held):
        return replace(receipt, note=AS_BEFORE)
    if history.tail_from is None or planned.held is None:
        return receipt
    return _continued(receipt, history, planned.held, now)


def _is_as_before(receipt: Receipt, held: Mapping[str, Any] | None) -> bool:
    names = ("status", "rows_read", "distinct_steps", "fingerprint")
    return held is not None and all(held[name] == getattr(receipt, name) for name in names)


def _continued(
    tail: Receipt, history: StagedHistory, held: Mapping[str, Any], now: Fingerprint
) -> Receipt:
    """The receipt of rows that continue held ones; both have the step where they meet.

    Never complete: when the run has ended it is read once more, as a whole.
    """
    before = Fingerprint.loads(held["fingerprint"])
    # Where that step was logged twice this counts a row too many; the server's count bounds it.
    lines = min(history.line_count, before.lines - 1 + tail.rows_read)
    return replace(
        tail,
        status="growing",
        rows_read=lines,
        distinct_steps=held["distinct_steps"] - 1 + tail.distinct_steps,
        overwritten_cells=held["overwritten_cells"] + tail.overwritten_cells,
        first_step=held["first_step"],
        size_bytes=held["size_bytes"] + tail.size_bytes,
        fingerprint=replace(now, lines=lines, left_running=False, heartbeat_at=None).dumps(),
        left_running=False,
    )


def _system_receipt(staged: StagedRun, after: Node | None) -> Receipt:
    table_name = "system_metrics"
    if after is None:
        return Receipt(
            staged.run_id, "deleted", note="deleted while it was read", table_name=table_name
        )
    if staged.system is None:
        return _failed(staged.planned, None, staged.system_error, table_name)
    has_ended = str(after.get("state")) not in OPEN_STATES
    return Receipt(
        staged.run_id,
        "complete" if has_ended else "growing",
        rows_read=staged.system.rows,
        source="sampled",
        # As it was before the rows were read: what came meanwhile is read next time.
        fingerprint=system_fingerprint(staged.planned.node),
        left_running=has_ended,
        table_name=table_name,
    )


def _failed(
    planned: PlannedRun, held: Mapping[str, Any] | None, error: CommError | None, table_name: str
) -> Receipt:
    """A read that failed leaves the rows of an earlier one, and what was known of them."""
    note = f"{type(error).__name__}: {error}"
    return kept(planned.run_id, held, table_name, status="failed", note=note)


def _status(history: StagedHistory, node: Mapping[str, Any]) -> Status:
    if str(node.get("state")) in OPEN_STATES:
        return "growing"
    lines = int(node.get("historyLineCount") or 0)
    server_last = last_step(node.get("historyKeys"))
    # The counters were read after the rows: rows past their last step are of another history.
    last_fits = server_last is None or history.counts.last_step in (server_last, None)
    is_whole = adds_up(history.counts, lines, has_overlap=history.has_overlap)
    return "complete" if is_whole and last_fits else "unexplained"


def _held(now: Fingerprint, rows_read: int) -> Fingerprint:
    """What is held: of a run that still writes, the rows that were read."""
    return now if now.left_running else replace(now, lines=rows_read)
