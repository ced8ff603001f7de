"""What an export did, while it runs and at its end."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from wb_ops.errors import Advice, Facts
from wb_ops.export.planned import ExportPlan
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
    """What an export wrote, the receipts of its histories, and what else is unsound.

    `requests` and `size_bytes` are with those of the shards, if there were any; `waited_s`, time
    spent waiting for W&B's request limit, and `seconds` are of this process. `changed` counts runs
    that were left to the next export, because they, or what the warehouse holds of them, changed
    since the plan. `suspects` names where config and summary hold what looks like a secret: run id
    and JSON pointer, never the value. `broken` names the runs that the server could not list: they
    are neither written nor taken for deleted. `facts` are those of one failure among the runs, as a
    support would ask for them.
    """

    load_id: str
    dataset: str
    warehouse: str
    runs: int = 0
    history_rows: int = 0
    system_rows: int = 0
    unchanged: int = 0
    deleted: int = 0
    changed: int = 0
    requests: int = 0
    size_bytes: int = 0
    waited_s: float = 0.0
    seconds: float = 0.0
    new_columns: list[str] = field(default_factory=list)
    receipts: list[Receipt] = field(default_factory=list)
    advices: list[Advice] = field(default_factory=list)
    facts: Facts = field(default_factory=Facts)
    suspects: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

    @property
    def unsound(self) -> list[Receipt]:
        """Receipts of runs that failed, cannot be read or do not add up."""
        return [receipt for receipt in self.receipts if not receipt.is_sound]

    @property
    def statuses(self) -> dict[str, int]:
        """How many receipts have each status: those of histories, and those of `runs` and of
        system metrics that are unsound."""
        return dict(sorted(Counter(receipt.status for receipt in self.receipts).items()))

    def __str__(self) -> str:
        checked = ", ".join(f"{count} {status}" for status, count in self.statuses.items())
        system = f", {self.system_rows:,} system metrics" if self.system_rows else ""
        gone = f", {self.deleted} marked deleted" if self.deleted else ""
        gone += f", {self.changed} left to the next export" if self.changed else ""
        gone += f", not given by the server: {', '.join(self.broken)}," if self.broken else ""
        return (
            f"{self.runs} runs and {self.history_rows:,} history rows{system} written, "
            f"{self.unchanged} runs unchanged{gone} in {self.seconds:.1f} s "
            f"({self.requests} requests, {self.size_bytes / 1e6:.1f} MB); "
            f"receipts: {checked or 'none needed'}{self._warning}"
        )

    @property
    def _warning(self) -> str:
        if not self.suspects:
            return ""
        return (
            f"; {len(self.suspects)} values look like secrets: {', '.join(self.suspects[:3])}"
            f"{', ...' if len(self.suspects) > 3 else ''}"
        )


def new_report(plan: ExportPlan, warehouse: str) -> ExportReport:
    """A report of a plan of which nothing is written yet."""
    return ExportReport(
        load_id=plan.load_id,
        dataset=plan.request.dataset_name,
        warehouse=warehouse,
        unchanged=plan.unchanged,
        broken=list(plan.broken),
    )
