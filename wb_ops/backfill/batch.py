"""Writes the values of some runs: read fresh, merge per key, send, repair.

W&B has no compare-and-set, and a write replaces the whole document. The write itself therefore
returns what it replaced. If that is what was read, the write is done, and `sweep` reads it back
later; else the runs are read at once, members of others that were lost are put back, and values
of ours that were lost are written again, in a few rounds without a pause.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice

from wb_ops.backfill.account import CONTESTED, Account
from wb_ops.backfill.around import Around, Owed, owed_by, owed_value, replaced
from wb_ops.backfill.journal import Event, Outcome
from wb_ops.backfill.planned import PlannedValue
from wb_ops.backfill.policy import refusal
from wb_ops.backfill.targets import Edit, Texts, read_values
from wb_ops.backfill.writer import Befores, Writer, is_busy, is_of_one_run
from wb_ops.client.comparison import holds, same_json
from wb_ops.client.source import Node
from wb_ops.client.writing import read_runs
from wb_ops.errors import CommError, OutcomeUnknown

ROUNDS = 3


def in_batches(values: Iterable[PlannedValue], runs_each: int) -> Iterator[list[PlannedValue]]:
    """Split values by their runs, so many in a batch; all values of a run are in one batch."""
    of_runs: dict[str, list[PlannedValue]] = {}
    for value in values:
        of_runs.setdefault(value.run_id, []).append(value)
    runs = iter(of_runs.values())
    while some := list(islice(runs, runs_each)):
        yield list(chain.from_iterable(some))


@dataclass(slots=True, eq=False)
class Batch:
    """The values of up to 25 runs on their way; those of action `put_back` are of other writers.

    Attributes:
        is_again: the values were written before and are lost.
        error: why nothing more can be written now.
        repaired: members of others that were put back.
        window_s: the longest time between reading a run and the answer to its write.
        sent_at: when the last write was answered, by the monotonic clock.
    """

    writer: Writer
    values: Sequence[PlannedValue]
    is_again: bool = False
    error: CommError | None = None
    repaired: int = 0
    window_s: float = 0.0
    sent_at: float = 0.0
    _account: Account = field(init=False)
    _busy: CommError | None = None
    _is_in_doubt: bool = False
    _read_at: float = 0.0

    def __post_init__(self) -> None:
        self._account = Account(self.values, self.is_again)

    @property
    def outcomes(self) -> list[Outcome]:
        """What became of each value; complete when `write` has ended."""
        return self._account.outcomes

    @property
    def theirs(self) -> dict[str, Owed]:
        """Members of others that a write of ours took away, to be looked for later."""
        return self._account.later

    def write(self) -> Batch:
        """Write and settle every value; two requests where nobody interferes."""
        try:
            self._write()
        except CommError as error:
            self.error = error
            self._account.close_rest(self._event_of(error), f"{type(error).__name__}: {error}")
        self._account.tell_owed()
        return self

    def _event_of(self, error: CommError) -> Event:
        if self._is_in_doubt:
            return "unverified"
        return "not_sent" if error.advice.retryable else "failed"

    def _write(self) -> None:
        runs = self._account.open
        base = self._fetch(runs)
        edits = {run_id: self._first_edit(run_id, base.get(run_id)) for run_id in runs}
        for _ in range(ROUNDS):
            edits = {run_id: edit for run_id, edit in edits.items() if edit}
            if not edits:
                return
            base, edits = self._round(base, edits)
        if self._busy is not None and any(edits.values()):
            raise self._busy
        # What is lost once more waits for the others to end.
        for run_id, edit in edits.items():
            self._account.close_written(run_id, edit.ours)
        self._account.close_rest(
            "unverified", f"replaced by other writers {ROUNDS} times while we wrote"
        )

    def _fetch(self, run_ids: Mapping[str, object]) -> dict[str, Node]:
        # The window opens when the request leaves, not when its answer has come.
        self._read_at = time.monotonic()
        return read_runs(self.writer.source, sorted(run_ids))

    def _first_edit(self, run_id: str, node: Node | None) -> Edit:
        """What is to be written of what the plan wanted, now that the run is read again."""
        if node is None:
            self._account.close_gone(run_id)
            return Edit()
        target = self.writer.target
        if why := refusal(node, target, include_running=self.writer.include_running):
            self._account.close_run(run_id, *why)
            if why[0] == "failed":
                self._account.give_up(run_id)
                return Edit()
            return Edit(theirs=self._account.find_owed(run_id, node, target))
        now = read_values(node, target)
        ours: Texts = {
            value.key: value.new
            for value in list(self._account.open[run_id].values())
            if self._is_to_write(value, now.get(value.key))
        }
        return Edit(ours, self._account.find_owed(run_id, node, target))

    def _is_to_write(self, value: PlannedValue, now: str | None) -> bool:
        is_ours = self.writer.is_resumed or self.is_again
        if holds(now, value.new) if is_ours else same_json(now, value.new):
            event: Event = "written" if is_ours else "unchanged"
            self._account.close(value, event, "was there already")
            return False
        if not same_json(now, value.old):
            self._account.close(value, "conflict", "changed by another writer since the plan")
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
        self._is_in_doubt = True
        if error is None and self._is_alone(base, edits, before):
            self.repaired += sum(len(edit.theirs) for edit in edits.values())
            self._account.close_all_sent(edits)
            return dict(base), {}
        # Before the reading, which may fail: then nobody else knows what was there.
        self._owe(base, edits, before)
        after = self._fetch(edits)
        again: dict[str, Edit] = {}
        for run_id, edit in edits.items():
            if (node := after.get(run_id)) is None:
                self._account.close_gone(run_id)
                continue
            around = Around(self.writer.target, edit, base[run_id], before.get(run_id), node)
            again[run_id] = self._settle(run_id, edit, around)
            self._refuse(run_id, node, again[run_id])
        self._is_in_doubt = False
        if isinstance(error, OutcomeUnknown):
            self._doubt(error, again)
        elif error is not None and (is_busy(error) or is_of_one_run(error)):
            self._busy = error
        elif error is not None:
            self._give_up(error, again)
        return after, again

    def _owe(self, base: Mapping[str, Node], edits: Mapping[str, Edit], before: Befores) -> None:
        for run_id, found in before.items():
            edit = edits[run_id]
            owed = owed_by(run_id, edit, base[run_id], found, self.writer.target)
            self._account.owe(run_id, owed, edit.ours)

    def _refuse(self, run_id: str, node: Node, again: Edit) -> None:
        """Leave a run alone that may not be written to any more; put back what we took there."""
        include = self.writer.include_running
        if (why := refusal(node, self.writer.target, include_running=include)) is None:
            return
        is_closed = bool(node.get("readOnly"))
        for key in list(self._account.open[run_id] if is_closed else again.ours):
            self._account.close(self._account.open[run_id][key], *why)
        again.ours.clear()
        if is_closed:
            again.theirs.clear()
            self._account.give_up(run_id)

    def _is_alone(
        self, base: Mapping[str, Node], edits: Mapping[str, Edit], before: Mapping[str, Node]
    ) -> bool:
        """Whether the server said of every run that our write replaced what we had read."""
        target = self.writer.target
        return all(
            run_id in before and not replaced(base[run_id], before[run_id], target)
            for run_id in edits
        )

    def _settle(self, run_id: str, edit: Edit, around: Around) -> Edit:
        """Close what is there as it should be; return what must be written once more."""
        account = self._account
        again = Edit(theirs=around.lost_members())
        self.repaired += around.put_back()
        account.close_contested(run_id, edit.theirs.keys() - again.theirs.keys())
        for value in [account.open[run_id][key] for key in edit.ours]:
            if around.is_contested(value) and around.is_written(value):
                again.theirs[value.key] = around.contested(value)
                account.contest(run_id, value.key)
            elif around.is_contested(value):
                account.close(value, "conflict", CONTESTED)
            elif around.is_written(value):
                account.close_written(run_id, [value.key])
            elif around.is_untouched(value):
                again.ours[value.key] = value.new
            else:
                account.close(value, "conflict", "changed by another writer after we wrote")
        account.owed[run_id] = {
            key: owed_value(run_id, key, around.now(key), text, self.writer.target)
            for key, text in again.theirs.items()
        }
        return again

    def _doubt(self, error: CommError, again: dict[str, Edit]) -> None:
        """A write that never came is not sent again here: who called decides when."""
        for run_id, edit in again.items():
            for key in edit.ours:
                self._account.close(self._account.open[run_id][key], "unverified", error.message)
            edit.ours.clear()

    def _give_up(self, error: CommError, again: dict[str, Edit]) -> None:
        """Close the single runs that were refused; raise what refused all, or what may pass."""
        is_of_all = len(again) > 1 and all(again.values())
        if is_of_all or (error.advice.retryable and any(again.values())):
            raise error
        for run_id in [run_id for run_id, edit in again.items() if edit]:
            self._account.close_run(run_id, "failed", f"{type(error).__name__}: {error}")
            del again[run_id]
