"""What is open of a batch: values of ours to settle, and members of others to put back."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from wb_ops.backfill.around import Owed, still_owed
from wb_ops.backfill.journal import Event, Outcome
from wb_ops.backfill.planned import PlannedValue
from wb_ops.backfill.targets import Edit, Target, Texts
from wb_ops.client.source import Node

log = logging.getLogger("wb_ops")

CONTESTED = "changed by another writer while we wrote"
AGAIN = "another writer's write had taken it away: written again"


@dataclass(slots=True)
class Account:
    """Each value is closed once; what is owed is told at the end if it is not put back.

    Attributes:
        values: of the batch; those of action `put_back` are owed from the start.
        is_again: the values were written before and are lost.
        open: run id -> key -> value of ours without an outcome; every run of the batch is there.
        owed: run id -> members of others that a write of ours took away.
        later: those of them that are new in their run: once put back, they are looked for when
            everything is read back. Not those whose value others had changed: which of two values
            is the newer one, and which a stale writer brought back, nobody can tell later.
        outcomes: what became of each value.
    """

    values: Sequence[PlannedValue]
    is_again: bool
    open: dict[str, dict[str, PlannedValue]] = field(default_factory=dict)
    owed: dict[str, Owed] = field(default_factory=dict)
    later: dict[str, Owed] = field(default_factory=dict)
    outcomes: list[Outcome] = field(default_factory=list)
    _contested: dict[str, set[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for value in self.values:
            of_run = self.open.setdefault(value.run_id, {})
            if value.action == "put_back":
                self.owed.setdefault(value.run_id, {})[value.key] = value
            else:
                of_run[value.key] = value
        for run_id, owed in self.owed.items():
            self._look_later(run_id, owed)

    def close(self, value: PlannedValue, event: Event, note: str | None = None) -> None:
        """Settle a value of ours."""
        del self.open[value.run_id][value.key]
        if value.key in self._contested.get(value.run_id, ()) and event != "gone":
            # Ours may still be there in place of theirs: neither refused nor settled.
            event = "unverified"
        self.outcomes.append((value, event, note))

    def close_written(self, run_id: str, keys: Iterable[str]) -> None:
        """Settle values that are there."""
        for key in keys:
            self.close(self.open[run_id][key], "written", AGAIN if self.is_again else None)

    def close_run(self, run_id: str, event: Event, note: str) -> None:
        """Settle all that is open of a run."""
        for value in list(self.open[run_id].values()):
            self.close(value, event, note)

    def close_rest(self, event: Event, note: str) -> None:
        """Settle all that is open."""
        for run_id in self.open:
            self.close_run(run_id, event, note)

    def close_gone(self, run_id: str) -> None:
        """Settle a run that was deleted: nothing can be put back there."""
        self.close_run(run_id, "gone", "the run was deleted")
        self.owed.pop(run_id, None)
        self.later.pop(run_id, None)

    def contest(self, run_id: str, key: str) -> None:
        """Note another writer's member of our key: no conflict is told before it is back.

        Until then it is a loss.
        """
        self._contested.setdefault(run_id, set()).add(key)

    def close_contested(self, run_id: str, back: Iterable[str]) -> None:
        """Close our keys for which others' values are back."""
        for key in self._contested.get(run_id, set()).intersection(back):
            self._contested[run_id].remove(key)
            self.close(self.open[run_id][key], "conflict", CONTESTED)

    def owe(self, run_id: str, owed: Owed, ours: Mapping[str, object]) -> None:
        """Keep what a write took away on record: neither error nor refusal may make it vanish."""
        self.owed[run_id] = self.owed.get(run_id, {}) | owed
        others = {key: value for key, value in owed.items() if key not in ours}
        self._look_later(run_id, others)

    def find_owed(self, run_id: str, node: Node, target: Target) -> Texts:
        """What is still as our write left it; nothing else is owed of this run."""
        if not self.owed.get(run_id):
            return {}
        self.owed[run_id] = still_owed(self.owed[run_id], node, target)
        return {key: value.new for key, value in self.owed[run_id].items()}

    def give_up(self, run_id: str) -> None:
        """Nothing can be put back into a run now, nor later."""
        self.later.pop(run_id, None)

    def close_all_sent(self, edits: Mapping[str, Edit]) -> None:
        """Settle all of a write that nobody interfered with."""
        for run_id, edit in edits.items():
            self.close_written(run_id, edit.ours)
            self.close_contested(run_id, edit.theirs)
            self.owed[run_id] = {}

    def tell_owed(self) -> None:
        """Tell of members of others: not put back, or of those that were owed before, settled."""
        for run_id, owed in self.owed.items():
            later = self.later.get(run_id, {})
            lost = [value for key, value in owed.items() if key not in later]
            warn_of_lost(run_id, lost)
            self.outcomes += [(value, "owed", None) for value in lost]
        for value in self.values:
            is_owed = value.key in self.owed.get(value.run_id, {})
            if value.is_recorded and not is_owed:
                self.outcomes.append((value, "settled", None))

    def _look_later(self, run_id: str, owed: Owed) -> None:
        """New members are looked for later; one that was changed since is not new any more."""
        new = {key: value for key, value in owed.items() if value.old is None}
        kept = {k: v for k, v in self.later.pop(run_id, {}).items() if k not in owed}
        if kept or new:
            self.later[run_id] = kept | new


def warn_of_lost(run_id: str, members: Iterable[PlannedValue]) -> None:
    """Log members of others that are not put back; the journal has their text."""
    if keys := [value.key for value in members]:
        log.warning("run %s: %s of other writers may be lost", run_id, ", ".join(keys))
