"""What became of the values so far: counted in the report, and appended to the journal."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from wb_ops.backfill.journal import Journal, Outcome
from wb_ops.backfill.planned import PlannedValue
from wb_ops.backfill.report import BackfillReport
from wb_ops.errors import WarehouseError

log = logging.getLogger("wb_ops")

# Opening a warehouse may cost more than a write. What a kill takes is looked up again.
JOURNAL_EVERY_S = 1.0


@dataclass(slots=True)
class Ledger:
    """Takes each outcome once; the journal has it at most a second, and one batch, later.

    While the journal cannot be written to, outcomes are held, and `error` says why.
    """

    report: BackfillReport
    journal: Journal
    error: WarehouseError | None = None
    refusals: set[str] = field(default_factory=set)
    _held: list[Outcome] = field(default_factory=list)
    _told: set[PlannedValue] = field(default_factory=set)
    _journaled_at: float = field(default_factory=time.monotonic)

    def add(self, outcomes: Iterable[Outcome]) -> None:
        """Count outcomes, and append them when it is time."""
        some = list(outcomes)
        self._held += some
        self._told |= {value for value, _, _ in some}
        self.report.add(some)
        self.refusals |= {note or "" for _, event, note in some if event == "failed"}
        if time.monotonic() - self._journaled_at < JOURNAL_EVERY_S:
            return
        try:
            self.flush()
        except WarehouseError as error:
            log.warning("%s; the outcomes so far are held", error)
            self.error, self._journaled_at = error, time.monotonic()

    def close(self, values: Iterable[PlannedValue], why: object) -> None:
        """Say of all values that nothing was told of that an error came before their turn."""
        self.add([(value, "not_sent", f"{why}") for value in values if value not in self._told])

    def flush(self) -> None:
        """Append what the journal does not have yet.

        Raises:
            WarehouseError: it cannot be written to now; what is held stays so.
        """
        self.journal.record(self._held)
        self._held, self.error = [], None
        self._journaled_at = time.monotonic()
