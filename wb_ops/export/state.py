"""What the warehouse already holds of a project: watermark, fingerprints, runs to look at again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import chain
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from wb_ops.export.request import ExportRequest
from wb_ops.warehouse import Warehouse

# Server and warehouse see changes with a lag (10 minutes have been reported).
OVERLAP = timedelta(minutes=30)


@dataclass(frozen=True, slots=True)
class Known:
    """What the last receipt of one run and table says; `row` is all of it."""

    fingerprint: str
    status: str
    row: Mapping[str, Any] = field(repr=False)

    @property
    def is_settled(self) -> bool:
        """Whether the rows are all there and the run has ended."""
        return self.status in ("complete", "deleted")


@dataclass(frozen=True, slots=True)
class Marks:
    """How far a scope has come; stored in `_wb_state`.

    Attributes:
        watermark: server time up to which changes were seen; None before the first load.
        reconciled_at: when the whole listing was last compared.
        checked_at: when the last listing was made; a backfill since then is looked at next time.
    """

    watermark: datetime | None = None
    reconciled_at: datetime | None = None
    checked_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class ExportState:
    """The warehouse's side of a plan.

    Attributes:
        marks: how far this scope has come.
        runs, history: the last receipt of each run.
        backfilled: runs that a backfill wrote since the last load.
    """

    marks: Marks = field(default_factory=Marks)
    runs: dict[str, Known] = field(default_factory=dict)
    history: dict[str, Known] = field(default_factory=dict)
    backfilled: frozenset[str] = frozenset()

    @property
    def unsettled(self) -> set[str]:
        """Runs that were not finished or not complete when they were last read."""
        both = chain(self.runs.items(), self.history.items())
        return {run_id for run_id, known in both if not known.is_settled}


def read_state(request: ExportRequest, warehouse: Warehouse) -> ExportState:
    """Read the state of one scope; one opening of the warehouse, none of its large tables."""
    names = ("_wb_state", "_wb_receipts", "_wb_backfills")
    tables = warehouse.read_tables(request.dataset_name, names)
    row = next(
        (row for row in tables["_wb_state"].to_pylist() if row["scope"] == request.scope), None
    )
    receipts = tables["_wb_receipts"]
    marks = Marks(row["watermark"], row["reconciled_at"], row["updated_at"]) if row else Marks()
    return ExportState(
        marks=marks,
        runs=_known(receipts, "runs"),
        history=_known(receipts, "history"),
        backfilled=_backfilled(tables["_wb_backfills"], marks.checked_at),
    )


def _known(receipts: pa.Table, table_name: str) -> dict[str, Known]:
    of_table = receipts.filter(pc.equal(receipts["table_name"], table_name))
    return {
        row["run_id"]: Known(row["fingerprint"], row["status"], row) for row in of_table.to_pylist()
    }


def _backfilled(journal: pa.Table, since: datetime | None) -> frozenset[str]:
    # The journal's clock and the export's may be those of two machines.
    return frozenset(
        row["run_id"]
        for row in journal.select(["run_id", "recorded_at"]).to_pylist()
        if since is None or row["recorded_at"] >= since - OVERLAP
    )
