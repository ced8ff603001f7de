"""The proof of each export: what was read, against what the server counts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import pyarrow as pa

from wb_ops.client.source import Node
from wb_ops.export.fingerprints import fingerprint
from wb_ops.export.staging import StagedRun
from wb_ops.tables.runs import OPEN_STATES, last_step
from wb_ops.tables.schemas import RECEIPTS

Status = Literal["complete", "growing", "unexplained", "failed", "deleted"]


@dataclass(frozen=True, slots=True)
class Receipt:
    """How one run's rows in a table were checked.

    `complete`: every row the server counts is there and the run has ended. `growing`: the run
    still writes. `unexplained`: the counts differ and nothing explains it. `failed`: it could not
    be read, `note` says why; the counts are those of the rows that are held from before.
    `deleted`: the run is gone on the server, its rows stay.
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


def receipt(staged: StagedRun, after: Node | None) -> Receipt:
    """Compare what was read with the server's counters, which were read after the rows."""
    node = after or staged.planned.node
    held = fingerprint(node, staged.planned.keys)
    if after is None:
        return Receipt(staged.run_id, "deleted", note="deleted while it was read")
    if staged.error is not None or staged.history is None:
        return _failed(staged)
    history = staged.history
    return Receipt(
        run_id=staged.run_id,
        status=_status(staged, node),
        rows_read=history.rows_read,
        distinct_steps=history.distinct_steps,
        overwritten_cells=history.overwritten_cells,
        first_step=history.first_step,
        last_step=history.last_step,
        server_rows=held.lines,
        server_last_step=held.last_step,
        source=staged.source,
        size_bytes=staged.size_bytes,
        fingerprint=_held(held.dumps(), history.rows_read, held.left_running),
        left_running=held.left_running,
    )


def _failed(staged: StagedRun) -> Receipt:
    """A read that failed leaves the rows of an earlier one, and what was known of them."""
    note = f"{type(staged.error).__name__}: {staged.error}"
    held = staged.planned.held
    if held is None:
        return Receipt(staged.run_id, "failed", note=note)
    known = {name: held[name] for name in Receipt.__slots__ if name in held}
    return Receipt(**{**known, "status": "failed", "note": note})


def _status(staged: StagedRun, node: Mapping[str, Any]) -> Status:
    history = staged.history
    assert history is not None  # noqa: S101 - receipt() has asked
    if str(node.get("state")) in OPEN_STATES:
        return "growing"
    lines = int(node.get("historyLineCount") or 0)
    server_last = last_step(node.get("historyKeys"))
    # A step that was logged twice counts as two lines; one that two files hold is read twice,
    # and could hide a row that is missing.
    counts = {history.distinct_steps}
    if not staged.has_overlap:
        counts.add(history.rows_read)
    counts_fit = lines in counts
    last_fits = server_last is None or history.last_step in (server_last, None)
    return "complete" if counts_fit and last_fits else "unexplained"


def _held(text: str, rows_read: int, left_running: bool) -> str:
    """The fingerprint of what is held: of a run that still writes, the rows that were read."""
    if left_running:
        return text
    return json.dumps({**json.loads(text), "lines": rows_read}, sort_keys=True)


def receipts_table(
    receipts: Iterable[Receipt], hashes: Mapping[str, str], load_id: str, checked_at: datetime
) -> pa.Table:
    """Rows of `_wb_receipts`: the given ones, and one for each row of `runs` that is written.

    `hashes` is run_id -> content hash of those rows.
    """
    rows = [_row(one) for one in receipts]
    rows += [_runs_row(run_id, content_hash) for run_id, content_hash in hashes.items()]
    common = {"load_id": load_id, "checked_at": checked_at}
    return pa.Table.from_pylist([{**row, **common} for row in rows], schema=RECEIPTS)


def deleted_table(run_ids: Sequence[str], load_id: str, checked_at: datetime) -> pa.Table:
    """Receipts that say that runs are gone; their rows stay and are marked."""
    tables = ("history", "runs")
    rows = [
        _row(Receipt(run_id, "deleted", table_name=name)) for run_id in run_ids for name in tables
    ]
    common = {"load_id": load_id, "checked_at": checked_at}
    return pa.Table.from_pylist([{**row, **common} for row in rows], schema=RECEIPTS)


def _row(one: Receipt) -> dict[str, Any]:
    return {name: getattr(one, name) for name in Receipt.__slots__}


def _runs_row(run_id: str, content_hash: str) -> dict[str, Any]:
    return {
        "run_id": run_id,
        "table_name": "runs",
        "status": "complete",
        "rows_read": 1,
        "fingerprint": content_hash,
    }
