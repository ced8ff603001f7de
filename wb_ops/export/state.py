"""What the warehouse already holds of a project: watermark, fingerprints, runs to look at again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from wb_ops.export.request import ExportRequest
from wb_ops.warehouse import Warehouse

# Server and warehouse see changes with a lag (10 minutes have been reported).
OVERLAP = timedelta(minutes=30)

SETTLED = ("complete", "deleted")


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

    def latest(self, other: Marks) -> Marks:
        """The later of each: an export that ends late takes back nothing that another one did."""
        pairs = (
            (self.watermark, other.watermark),
            (self.reconciled_at, other.reconciled_at),
            (self.checked_at, other.checked_at),
        )
        return Marks(*(max((one for one in pair if one), default=None) for pair in pairs))


class Receipts:
    """The last receipt of each run for one table."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table
        # Column by column: a project's receipts are many, and most are only compared.
        run_ids = table["run_id"].to_pylist()
        self._rows = {run_id: row for row, run_id in enumerate(run_ids)}
        self._statuses = table["status"].to_pylist()
        self._fingerprints = table["fingerprint"].to_pylist()
        self._loads = table["load_id"].to_pylist()

    def __contains__(self, run_id: str) -> bool:
        return run_id in self._rows

    def status(self, run_id: str) -> str | None:
        """complete, growing, unexplained, failed or deleted; None without a receipt."""
        row = self._rows.get(run_id)
        return None if row is None else str(self._statuses[row])

    def fingerprint(self, run_id: str) -> str | None:
        """What was held at the last load; None or "" where nothing is."""
        row = self._rows.get(run_id)
        return None if row is None else self._fingerprints[row]

    def load_id(self, run_id: str) -> str | None:
        """The load that wrote the run's rows last."""
        row = self._rows.get(run_id)
        return None if row is None else self._loads[row]

    def whole(self, run_id: str) -> dict[str, Any] | None:
        """The whole receipt."""
        row = self._rows.get(run_id)
        return None if row is None else dict(self._table.slice(row, 1).to_pylist()[0])

    @property
    def present(self) -> set[str]:
        """Runs that are not marked as deleted."""
        pairs = zip(self._rows, self._statuses, strict=True)
        return {run_id for run_id, status in pairs if status != "deleted"}

    @property
    def unsettled(self) -> set[str]:
        """Runs that were not finished or not complete when they were last read."""
        pairs = zip(self._rows, self._statuses, strict=True)
        return {run_id for run_id, status in pairs if status not in SETTLED}


@dataclass(frozen=True, slots=True)
class ExportState:
    """The warehouse's side of a plan.

    Attributes:
        marks: how far this scope has come.
        receipts: table name -> receipts; every table of a request is there.
        backfilled: runs that a backfill wrote since the last load.
    """

    marks: Marks
    receipts: Mapping[str, Receipts] = field(repr=False)
    backfilled: frozenset[str] = frozenset()

    def again(self, tables: tuple[str, ...]) -> set[str]:
        """Runs to look at whatever the server says of their times."""
        unsettled = (self.receipts[name].unsettled for name in {"runs", *tables})
        return set(self.backfilled).union(*unsettled)


def read_state(request: ExportRequest, warehouse: Warehouse) -> ExportState:
    """Check the warehouse and read the state of one scope; one opening, no large table."""
    names = ("_wb_state", "_wb_receipts", "_wb_backfills")
    tables = warehouse.read_checked(request.dataset_name, request.owner, names)
    marks = marks_of(tables["_wb_state"], request.scope)
    wanted = {"runs", "history", *request.tables}
    return ExportState(
        marks=marks,
        receipts=receipts_by_table(tables["_wb_receipts"], wanted),
        backfilled=_backfilled(tables["_wb_backfills"], marks.checked_at),
    )


def marks_of(state: pa.Table, scope: str) -> Marks:
    """The marks of one scope in `_wb_state`."""
    row = next((row for row in state.to_pylist() if row["scope"] == scope), None)
    return Marks(row["watermark"], row["reconciled_at"], row["updated_at"]) if row else Marks()


def receipts_by_table(receipts: pa.Table, names: Iterable[str]) -> dict[str, Receipts]:
    """`_wb_receipts` by the table that a receipt is for."""
    return {
        name: Receipts(receipts.filter(pc.equal(receipts["table_name"], name))) for name in names
    }


def _backfilled(journal: pa.Table, since: datetime | None) -> frozenset[str]:
    if since is not None:
        # The journal's clock and the export's may be those of two machines.
        late = pc.greater_equal(journal["recorded_at"], pa.scalar(since - OVERLAP))
        journal = journal.filter(late)
    return frozenset(journal["run_id"].to_pylist())
