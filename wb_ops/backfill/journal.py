"""The append-only record of every write: intent before it, outcome after it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

import pyarrow as pa

from wb_ops.backfill.plan import PlannedValue
from wb_ops.tables.schemas import BACKFILLS
from wb_ops.warehouse import Warehouse

Event = Literal["intent", "written", "conflict", "unverified", "failed"]
TABLE = "_wb_backfills"


@dataclass(frozen=True, slots=True)
class Journal:
    """Appends to `_wb_backfills` of one dataset; each append is durable when it returns."""

    warehouse: Warehouse
    dataset: str
    backfill_id: str

    def record(self, event: Event, values: Iterable[PlannedValue], note: str | None = None) -> None:
        """Append one line for each value."""
        now = datetime.now(UTC)
        rows = [
            {
                "backfill_id": self.backfill_id,
                "run_id": value.run_id,
                "target": "summary",
                "key": value.key,
                "event": event,
                "old_value": value.old,
                "new_value": value.new,
                "note": note,
                "recorded_at": now,
            }
            for value in values
        ]
        if rows:
            self.warehouse.append(self.dataset, TABLE, pa.Table.from_pylist(rows, schema=BACKFILLS))
