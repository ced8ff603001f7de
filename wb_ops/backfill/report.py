"""What became of a backfill."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from wb_ops.backfill.journal import Outcome
from wb_ops.backfill.planned import PlannedValue

# The line of a report names so many runs; its lists have all.
MAX_NAMED = 5


@dataclass(slots=True)
class BackfillReport:
    """What became of a backfill, counted in values (one key of one run).

    Attributes:
        written: written by us and read back.
        conflicts: changed by somebody else, before or while we wrote; theirs was left or put
            back. Plan again.
        unverified: sent, and not what is read back.
        failed: refused by the server: the same would be refused again.
        not_sent: not written, because of an error that may pass, or that came before their turn.
        gone: of runs that were deleted meanwhile.
        unchanged, skipped: how many values needed no write, or were not to be written.
        left: of an undo or a resume, the skipped values, each with its `reason`: the run was
            deleted, logs, or is read-only.
        repaired: members of other writers that our write had replaced and that were put back;
            one that was replaced twice counts twice.
        owed: members of other writers that our write had replaced and that are not put back: the
            journal has them, and `resume` puts them back.
        rewritten: values that were missing when everything was read back, and were sent again; one
            that was missing twice counts twice.
        window_s: the longest time between our reading of a run and the answer to our write of
            it: what others wrote to that run in this time was looked for, and put back.
        watched: whether the server said what each write replaced. If not, members of others that
            were written in `window_s` may be lost without a trace.
        requests, seconds: what it took.
    """

    backfill_id: str
    written: list[PlannedValue] = field(default_factory=list)
    conflicts: list[PlannedValue] = field(default_factory=list)
    unverified: list[PlannedValue] = field(default_factory=list)
    gone: list[PlannedValue] = field(default_factory=list)
    unchanged: int = 0
    skipped: int = 0
    requests: int = 0
    seconds: float = 0.0
    failed: list[PlannedValue] = field(default_factory=list)
    not_sent: list[PlannedValue] = field(default_factory=list)
    left: list[PlannedValue] = field(default_factory=list)
    repaired: int = 0
    window_s: float = 0.0
    rewritten: int = 0
    watched: bool = True
    owed: list[PlannedValue] = field(default_factory=list)

    @property
    def runs(self) -> int:
        """How many runs were written to."""
        return len({value.run_id for value in self.written})

    @property
    def others(self) -> str:
        """What became of the values that were not refused, in words."""
        counts = {
            "in conflict": len(self.conflicts),
            "of deleted runs": len(self.gone),
            "not sent": len(self.not_sent),
            "not verified": len(self.unverified),
        }
        if not any(counts.values()):
            return "all others are written"
        told = {"written": len(self.written) + self.unchanged} | counts
        return "of the others " + ", ".join(f"{n} {what}" for what, n in told.items() if n)

    def add(self, outcomes: Iterable[Outcome]) -> None:
        """Count outcomes."""
        lists = {
            "written": self.written,
            "conflict": self.conflicts,
            "unverified": self.unverified,
            "failed": self.failed,
            "not_sent": self.not_sent,
            "gone": self.gone,
            "owed": self.owed,
        }
        for value, event, _ in outcomes:
            if event in lists:
                lists[event].append(value)
            elif event == "unchanged":
                self.unchanged += 1

    def __str__(self) -> str:
        counts = {
            "written": len(self.written),
            "unchanged": self.unchanged,
            "skipped": self.skipped,
            "in conflict": len(self.conflicts),
            "of deleted runs": len(self.gone),
            "refused": len(self.failed),
            "not sent": len(self.not_sent),
            "not verified": len(self.unverified),
            "lost and written again": self.rewritten,
            "of others put back": self.repaired,
            "owed to others (resume)": len(self.owed),
        }
        told = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
        runs = [f"{run} ({why})" for run, why in {v.run_id: v.reason for v in self.left}.items()]
        more = f" and {len(runs) - MAX_NAMED:,} more" if runs[MAX_NAMED:] else ""
        left = f"; skipped: {', '.join(runs[:MAX_NAMED])}{more}" if runs else ""
        blind = "" if self.watched else "; the server does not say what was replaced"
        return (
            f"backfill {self.backfill_id}: {told or 'nothing to write'}; {self.runs} runs changed "
            f"in {self.seconds:.1f} s ({self.requests} requests){left}{blind}"
        )
