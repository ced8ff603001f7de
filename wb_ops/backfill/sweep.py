"""Reads back what was written when late writers have come, and writes again what was lost.

A write replaces the whole document, so a writer that read a run before our write and sends after
it takes our values away, and none of the two is told. Each backfill therefore looks again at all
that it wrote, and at the members of others that it put back, some time after its last write, and
goes on until it finds nothing missing. That time is four times the longest that these writes took
from their reading to their answer: by then, others have written what they had read before, and have
put back (in up to three rounds) what they replaced.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from wb_ops.backfill.account import warn_of_lost
from wb_ops.backfill.around import Owed, still_owed
from wb_ops.backfill.batch import Batch, in_batches
from wb_ops.backfill.journal import Event, Outcome
from wb_ops.backfill.ledger import Ledger
from wb_ops.backfill.lookup import Found, look_up
from wb_ops.backfill.planned import PlannedValue
from wb_ops.backfill.targets import read_values
from wb_ops.backfill.writer import Writer
from wb_ops.client.comparison import holds, same_json
from wb_ops.client.source import IDS_PER_REQUEST
from wb_ops.errors import CommError, MalformedResponse
from wb_ops.tables.runs import OPEN_STATES

log = logging.getLogger("wb_ops")

MAX_SWEEPS = 10
SETTLE_WINDOWS = 4
MIN_SETTLE_S = 0.2
LOGS_ON = "the run logs on and has replaced what was written: plan again when it has ended"


@dataclass(slots=True)
class Sweep:
    """Holds what was written until it was seen again; all its outcomes go to the ledger.

    `error` is why it could not look, or write again.
    """

    writer: Writer
    ledger: Ledger
    runs_each: int
    error: CommError | None = None
    _waiting: list[Batch] = field(default_factory=list)

    def add(self, batch: Batch) -> None:
        """Take a batch that was sent: what was written waits, the rest is told at once."""
        report = self.ledger.report
        report.repaired += batch.repaired
        report.window_s = max(report.window_s, batch.window_s)
        self.error = self.error or batch.error
        self.ledger.add(outcome for outcome in batch.outcomes if outcome[1] != "written")
        if batch.theirs or any(event == "written" for _, event, _ in batch.outcomes):
            self._waiting.append(batch)

    def look_at_due(self) -> None:
        """Read back the batches that are old enough, if they fill a request."""
        now = time.monotonic()
        due = [batch for batch in self._waiting if batch.sent_at + _settle_s(batch) <= now]
        if sum(len(_run_ids(batch)) for batch in due) < IDS_PER_REQUEST:
            return
        self._waiting = [batch for batch in self._waiting if batch not in due]
        self._look(due)

    def finish(self) -> None:
        """Wait, read back, write again what is missing, until nothing is."""
        try:
            for number in range(MAX_SWEEPS):
                if not self._waiting or (number and self.error):
                    return
                self._wait(number)
                waiting, self._waiting = self._waiting, []
                self._look(waiting)
        finally:
            self._give_up()

    def _wait(self, number: int) -> None:
        sent_at = max(batch.sent_at for batch in self._waiting)
        settle_s = max(map(_settle_s, self._waiting))
        # Writers that write again in step would take each other's values away for ever.
        jitter_s = random.uniform(0, settle_s) if number else 0.0  # noqa: S311 - no secret
        time.sleep(max(0.0, sent_at + settle_s + jitter_s - time.monotonic()))

    def _look(self, batches: Sequence[Batch]) -> None:
        run_ids = sorted({run_id for batch in batches for run_id in _run_ids(batch)})
        try:
            found = look_up(self.writer.source, run_ids)
        except CommError as error:
            log.warning("%s; what was written is not read back yet", error)
            self.error = self.error or error
            self._waiting += batches
            return
        for batch in self._again(self._lost(batches, found)):
            self.add(batch)

    def _lost(self, batches: Sequence[Batch], found: Found) -> list[PlannedValue]:
        """Tell what is as it should be, or cannot be any more; return what is missing."""
        lost: list[PlannedValue] = []
        for batch in batches:
            for outcome in batch.outcomes:
                if outcome[1] == "written" and (told := self._seen(outcome, found, batch.is_again)):
                    self.ledger.add([told])
                elif outcome[1] == "written":
                    lost.append(outcome[0])
            for run_id, owed in batch.theirs.items():
                lost += self._lost_members(run_id, owed, found)
        return lost

    def _lost_members(self, run_id: str, owed: Owed, found: Found) -> Iterable[PlannedValue]:
        """Members of others to put back again; what cannot be seen now is owed."""
        if run_id not in found.nodes and run_id not in found.broken:
            return ()  # the run was deleted
        try:
            return still_owed(owed, found.nodes[run_id], self.writer.target).values()
        except (KeyError, MalformedResponse):
            self._tell_owed(run_id, owed)
            return ()

    def _tell_owed(self, run_id: str, owed: Owed) -> None:
        warn_of_lost(run_id, owed.values())
        self.ledger.add((value, "owed", None) for value in owed.values())

    def _seen(self, outcome: Outcome, found: Found, is_again: bool) -> Outcome | None:
        """What to tell of a value; None where it is missing and is to be written again."""
        value, event, note = outcome
        if error := found.broken.get(value.run_id):
            return value, "unverified", f"not read back: {error}"
        if (node := found.nodes.get(value.run_id)) is None:
            return value, "gone", "the run was deleted"
        try:
            now = read_values(node, value.target).get(value.key)
        except MalformedResponse:
            return value, "unverified", "unreadable"
        if holds(now, value.new):
            return value, event, note
        is_missing = same_json(now, value.old)
        # A run that logs sends its whole summary every few seconds: it wins each time.
        is_hopeless = is_again if is_missing else now is None
        if node.get("state") in OPEN_STATES and is_hopeless:
            return value, "unverified", LOGS_ON
        if is_missing:
            return None
        return value, "conflict", "changed by another writer after we wrote"

    def _again(self, lost: Sequence[PlannedValue]) -> Iterator[Batch]:
        ours = sum(value.action == "set" for value in lost)
        self.ledger.report.rewritten += ours
        if lost:
            log.info("%d values were lost to other writers and are written again", ours)
        for values in in_batches(lost, self.runs_each):
            yield Batch(self.writer, values, is_again=True).write()

    def _give_up(self) -> None:
        """Tell what was not seen again: with an error, or after the last sweep."""
        event: Event = "unverified"
        missed = f"missing at {MAX_SWEEPS} readings, and written again after each"
        why = f"not read back: {self.error}" if self.error else missed
        for batch in self._waiting:
            self.ledger.add(
                (value, event, why) for value, was, _ in batch.outcomes if was == "written"
            )
            for run_id, owed in batch.theirs.items():
                self._tell_owed(run_id, owed)
        self._waiting = []


def _settle_s(batch: Batch) -> float:
    return max(MIN_SETTLE_S, SETTLE_WINDOWS * batch.window_s)


def _run_ids(batch: Batch) -> set[str]:
    written = {value.run_id for value, event, _ in batch.outcomes if event == "written"}
    return written | set(batch.theirs)
