"""Writes the values of some runs: read fresh, merge per key, send, repair.

W&B has no compare-and-set, and a write replaces the whole document. The write itself therefore
returns what it replaced. If that is what was read, the write is done, and `sweep` reads it back
later; else the runs are read at once, members of others that were lost are put back, and values
of ours that were lost are written again, in a few rounds without a pause.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from wb_ops.backfill.around import Around, missing, replaced, with_owed
from wb_ops.backfill.journal import Event, Outcome
from wb_ops.backfill.planned import PlannedValue
from wb_ops.backfill.policy import refusal
from wb_ops.backfill.targets import Edit, Texts, read_values
from wb_ops.backfill.writer import Writer, is_busy, is_of_one_run
from wb_ops.client.comparison import holds, same_json
from wb_ops.client.source import Node
from wb_ops.client.writing import read_runs
from wb_ops.errors import CommError, OutcomeUnknown

log = logging.getLogger("wb_ops")

ROUNDS = 3
CONTESTED = "changed by another writer while we wrote"
AGAIN = "another writer's write had taken it away: written again"


@dataclass(slots=True, eq=False)
class Batch:
    """The values of up to 25 runs on their way.

    Attributes:
        theirs: run id -> key -> JSON text of a member of others that a write of ours took away.
            Those that are given are put back; those that are found meanwhile are added.
        is_again: the values were written before and are lost.
        outcomes: what became of each value; complete when `write` has ended.
        error: why nothing more can be written now.
        repaired: members of others that were put back.
        window_s: the longest time between reading a run and the answer to its write.
        sent_at: when the last write was answered, by the monotonic clock.
    """

    writer: Writer
    values: Sequence[PlannedValue]
    theirs: dict[str, dict[str, str]] = field(default_factory=dict)
    is_again: bool = False
    outcomes: list[Outcome] = field(default_factory=list)
    error: CommError | None = None
    repaired: int = 0
    window_s: float = 0.0
    sent_at: float = 0.0
    _open: dict[str, dict[str, PlannedValue]] = field(default_factory=dict)
    _contested: dict[str, Texts] = field(default_factory=dict)
    _owed: dict[str, Texts] = field(default_factory=dict)
    _busy: CommError | None = None
    _is_in_doubt: bool = False
    _read_at: float = 0.0

    def write(self) -> Batch:
        """Write and settle every value; two requests where nobody interferes."""
        for value in self.values:
            self._open.setdefault(value.run_id, {})[value.key] = value
        for run_id in self.theirs:
            self._open.setdefault(run_id, {})
        try:
            self._write()
        except CommError as error:
            self.error = error
            self._close_rest(self._event_of(error), f"{type(error).__name__}: {error}")
        self._tell_owed()
        return self

    def _event_of(self, error: CommError) -> Event:
        if self._is_in_doubt:
            return "unverified"
        return "not_sent" if error.advice.retryable else "failed"

    def _write(self) -> None:
        base = self._fetch(self._open)
        edits = {run_id: self._first_edit(run_id, base.get(run_id)) for run_id in self._open}
        self._owe(edits)
        for _ in range(ROUNDS):
            edits = {run_id: edit for run_id, edit in edits.items() if edit}
            if not edits:
                return
            base, edits = self._round(base, edits)
        if self._busy is not None and any(edits.values()):
            raise self._busy
        # What is lost once more waits for the others to end.
        self._close_sent(edits)
        self._close_rest("unverified", f"replaced by other writers {ROUNDS} times while we wrote")

    def _owe(self, edits: Mapping[str, Edit]) -> None:
        """Keep what is still to be put back: neither error nor refusal may make it vanish."""
        self._owed |= {run_id: dict(edit.theirs) for run_id, edit in edits.items()}

    def _tell_owed(self) -> None:
        """Log members of others that are not put back; the journal's notes have their text."""
        owed = {run_id: self._unanswered(run_id, members) for run_id, members in self._owed.items()}
        for run_id, members in owed.items():
            if members:
                log.warning("run %s: %s of other writers may be lost", run_id, ", ".join(members))
        self.outcomes = [
            (value, event, with_owed(note, owed.get(value.run_id)))
            for value, event, note in self.outcomes
        ]

    def _unanswered(self, run_id: str, members: Texts) -> Texts:
        """Those that nobody looks for later: new ones are put back after they were read back."""
        later = self.theirs.get(run_id, {}) if self.error is None else {}
        return {key: text for key, text in members.items() if key not in later}

    def _fetch(self, run_ids: Mapping[str, object]) -> dict[str, Node]:
        # The window opens when the request leaves, not when its answer has come.
        self._read_at = time.monotonic()
        return read_runs(self.writer.source, sorted(run_ids))

    def _first_edit(self, run_id: str, node: Node | None) -> Edit:
        """What is to be written of what the plan wanted, now that the run is read again."""
        if node is None:
            self._close_run(run_id, "gone", "the run was deleted")
            return Edit()
        target = self.writer.target
        if why := refusal(node, target, include_running=self.writer.include_running):
            self._close_run(run_id, *why)
            return Edit()
        now = read_values(node, target)
        ours: Texts = {
            value.key: value.new
            for value in list(self._open[run_id].values())
            if self._is_to_write(value, now.get(value.key))
        }
        lost = missing(self.theirs.get(run_id, {}), node, target)
        return Edit(ours, dict(lost))

    def _is_to_write(self, value: PlannedValue, now: str | None) -> bool:
        is_ours = self.writer.is_resumed or self.is_again
        if holds(now, value.new) if is_ours else same_json(now, value.new):
            self._close(value, "written" if is_ours else "unchanged", "was there already")
            return False
        if not same_json(now, value.old):
            self._close(value, "conflict", "changed by another writer since the plan")
            return False
        return True

    def _round(
        self, base: Mapping[str, Node], edits: Mapping[str, Edit]
    ) -> tuple[dict[str, Node], dict[str, Edit]]:
        """Send, look what was replaced; returns the runs and what must be written again."""
        self._busy = None
        try:
            before, error = self.writer.send(base, edits)
        finally:
            self.sent_at = time.monotonic()
            self.window_s = max(self.window_s, self.sent_at - self._read_at)
        if error is None and self._is_alone(base, edits, before):
            self.repaired += sum(len(edit.theirs) for edit in edits.values())
            self._close_sent(edits)
            self._close_contested(edits)
            self._owe({run_id: Edit() for run_id in edits})
            return dict(base), {}
        self._is_in_doubt = True
        after = self._fetch(edits)
        again: dict[str, Edit] = {}
        for run_id, edit in edits.items():
            if (node := after.get(run_id)) is None:
                self._close_run(run_id, "gone", "the run was deleted")
                self._owed.pop(run_id, None)
                continue
            around = Around(self.writer.target, edit, base[run_id], before.get(run_id), node)
            again[run_id] = self._settle(run_id, edit, around)
            self._owe({run_id: again[run_id]})
            self._refuse(run_id, node, again[run_id])
        self._is_in_doubt = False
        if isinstance(error, OutcomeUnknown):
            self._doubt(error, again)
        elif error is not None and (is_busy(error) or is_of_one_run(error)):
            self._busy = error
        elif error is not None:
            self._give_up(error, again)
        return after, again

    def _refuse(self, run_id: str, node: Node, again: Edit) -> None:
        """Leave a run alone that may not be written to any more; put back what we took there."""
        include = self.writer.include_running
        if (why := refusal(node, self.writer.target, include_running=include)) is None:
            return
        is_closed = bool(node.get("readOnly"))
        for key in list(self._open[run_id] if is_closed else again.ours):
            self._close(self._open[run_id][key], *why)
        again.ours.clear()
        if is_closed:
            again.theirs.clear()
            # A later reading could not put them back either.
            self.theirs.pop(run_id, None)

    def _is_alone(
        self, base: Mapping[str, Node], edits: Mapping[str, Edit], before: Mapping[str, Node]
    ) -> bool:
        """Whether the server said of every run that our write replaced what we had read."""
        target = self.writer.target
        return all(
            run_id in before and not replaced(base[run_id], before[run_id], target)
            for run_id in edits
        )

    def _close_sent(self, edits: Mapping[str, Edit]) -> None:
        for run_id, edit in edits.items():
            for key in edit.ours:
                self._close_written(self._open[run_id][key])

    def _close_contested(self, edits: Mapping[str, Edit]) -> None:
        """Close our keys for which others' values are back."""
        for run_id, edit in edits.items():
            for key in [key for key in self._contested.get(run_id, {}) if key in edit.theirs]:
                del self._contested[run_id][key]
                self._close(self._open[run_id][key], "conflict", CONTESTED)

    def _settle(self, run_id: str, edit: Edit, around: Around) -> Edit:
        """Close what is there as it should be; return what must be written once more."""
        again = Edit(theirs=around.lost_members())
        if theirs := around.theirs():
            self.theirs.setdefault(run_id, {}).update(theirs)
        self.repaired += around.put_back()
        back = {key: text for key, text in edit.theirs.items() if key not in again.theirs}
        self._close_contested({run_id: Edit(theirs=back)})
        for key in self._contested.get(run_id, {}):
            self._contested[run_id][key] = again.theirs[key]
        for value in [self._open[run_id][key] for key in edit.ours]:
            if around.is_contested(value) and around.is_written(value):
                # No conflict is told before theirs is back: until then it is a loss.
                again.theirs[value.key] = around.contested(value)
                self._contested.setdefault(run_id, {})[value.key] = around.contested(value)
            elif around.is_contested(value):
                self._close(value, "conflict", CONTESTED)
            elif around.is_written(value):
                self._close_written(value)
            elif around.is_untouched(value):
                again.ours[value.key] = value.new
            else:
                self._close(value, "conflict", "changed by another writer after we wrote")
        return again

    def _doubt(self, error: CommError, again: dict[str, Edit]) -> None:
        """A write that never came is not sent again here: who called decides when."""
        for run_id, edit in again.items():
            for key in edit.ours:
                self._close(self._open[run_id][key], "unverified", error.message)
            edit.ours.clear()

    def _give_up(self, error: CommError, again: dict[str, Edit]) -> None:
        """Close the single runs that were refused; raise what refused all, or what may pass."""
        is_of_all = len(again) > 1 and all(again.values())
        if is_of_all or (error.advice.retryable and any(again.values())):
            raise error
        for run_id in [run_id for run_id, edit in again.items() if edit]:
            self._close_run(run_id, "failed", f"{type(error).__name__}: {error}")
            del again[run_id]

    def _close(self, value: PlannedValue, event: Event, note: str | None) -> None:
        del self._open[value.run_id][value.key]
        if value.key in self._contested.get(value.run_id, {}) and event != "gone":
            # Ours may still be there in place of theirs: neither refused nor settled.
            event = "unverified"
        self.outcomes.append((value, event, note))

    def _close_written(self, value: PlannedValue) -> None:
        self._close(value, "written", AGAIN if self.is_again else None)

    def _close_run(self, run_id: str, event: Event, note: str) -> None:
        for value in list(self._open[run_id].values()):
            self._close(value, event, note)

    def _close_rest(self, event: Event, note: str) -> None:
        for run_id in self._open:
            self._close_run(run_id, event, note)
