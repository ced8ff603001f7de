"""What an export did, while it runs and at its end."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from wb_ops.errors import Advice
from wb_ops.export.receipts import Receipt


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a running export is. `rows` and `size_bytes` count what was read from W&B."""

    runs_done: int
    runs_total: int
    rows: int
    rows_total: int
    size_bytes: int
    seconds: float


@dataclass(slots=True)
class ExportReport:
    """What an export wrote, and the receipts of its histories.

    `waited_s` is time spent waiting for W&B's request limit.
    """

    load_id: str
    dataset: str
    warehouse: str
    runs: int = 0
    history_rows: int = 0
    unchanged: int = 0
    deleted: int = 0
    requests: int = 0
    size_bytes: int = 0
    waited_s: float = 0.0
    seconds: float = 0.0
    new_columns: list[str] = field(default_factory=list)
    receipts: list[Receipt] = field(default_factory=list)
    advices: list[Advice] = field(default_factory=list)

    @property
    def unsound(self) -> list[Receipt]:
        """Receipts of runs that failed, cannot be read or do not add up."""
        return [receipt for receipt in self.receipts if not receipt.is_sound]

    @property
    def statuses(self) -> dict[str, int]:
        """How many histories have each status."""
        return dict(sorted(Counter(receipt.status for receipt in self.receipts).items()))

    def __str__(self) -> str:
        checked = ", ".join(f"{count} {status}" for status, count in self.statuses.items())
        gone = f", {self.deleted} marked deleted" if self.deleted else ""
        return (
            f"{self.runs} runs and {self.history_rows:,} history rows written, "
            f"{self.unchanged} runs unchanged{gone} in {self.seconds:.1f} s "
            f"({self.requests} requests, {self.size_bytes / 1e6:.1f} MB); "
            f"receipts: {checked or 'none needed'}"
        )
