"""Writes the values of some runs: read fresh, merge per key, send, read back, repair.

W&B has no compare-and-set, and a write replaces the whole document. What another writer changes
between our reading and our writing is therefore looked for twice: the write itself returns what
it replaced, and the runs are read back. Members of others that were lost are put back, values of
ours that were lost are written again, for a few rounds.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from wb_ops.backfill.around import Around
from wb_ops.backfill.journal import Event, Outcome
from wb_ops.backfill.planned import PlannedValue
from wb_ops.backfill.targets import Edit, read_values
from wb_ops.backfill.writer import Writer
from wb_ops.client.source import Node
from wb_ops.client.writing import read_runs, same_json
from wb_ops.errors import (
    CommError,
    MalformedResponse,
    OutcomeUnknown,
)
from wb_ops.tables.runs import OPEN_STATES

log = logging.getLogger("wb_ops")

MAX_ROUNDS = 14
MAX_PAUSE_S = 2.0


@dataclass(slots=True)
class Batch:
    """The values of up to 25 runs on their way.

    Attributes:
        outcomes: what became of each value; complete when `write` has ended.
        error: why nothing more can be written now.
        repaired: members of others that were put back.
        window_s: the longest time between reading a run and the answer to its write.
    """

    writer: Writer
    values: Sequence[PlannedValue]
    outcomes: list[Outcome] = field(default_factory=list)
    error: CommError | None = None
    repaired: int = 0
    window_s: float = 0.0
    _open: dict[str, dict[str, PlannedValue]] = field(default_factory=dict)
    _is_in_doubt: bool = False
    _read_at: float = 0.0

    def write(self) -> Batch:
        """Write and settle every value; three requests where nobody interferes."""
        for value in self.values:
            self._open.setdefault(value.run_id, {})[value.key] = value
        try:
            self._write()
            self._close_rest("unverified", "not what was read back")
        except CommError as error:
            self.error = error
            event: Event = "unverified" if self._is_in_doubt else "failed"
            self._close_rest(event, f"{type(error).__name__}: {error}")
        return self

    def _write(self) -> None:
        base = self._fetch(self._open)
        edits = {run_id: self._first_edit(run_id, base.get(run_id)) for run_id in self._open}
        for number in range(MAX_ROUNDS):
            if number > 1:
                base, edits = self._read_again(number, base, edits)
            edits = {run_id: edit for run_id, edit in edits.items() if edit}
            if not edits:
                return
            base, edits = self._round(base, edits)
        for run_id, edit in edits.items():
            if edit.theirs:
                lost = ", ".join(edit.theirs)
                log.warning("run %s: %s of other writers could not be put back", run_id, lost)

    def _fetch(self, run_ids: Mapping[str, object]) -> dict[str, Node]:
        # The window opens when the request leaves, not when its answer has come.
        self._read_at = time.monotonic()
        return read_runs(self.writer.source, sorted(run_ids))

    def _first_edit(self, run_id: str, node: Node | None) -> Edit:
        """What is to be written of what the plan wanted, now that the run is read again."""
        if node is None:
            self._close_run(run_id, "gone", "the run was deleted")
            return Edit()
        if refusal := self._refusal(node):
            self._close_run(run_id, *refusal)
            return Edit()
        now = read_values(node, self.writer.target)
        return Edit({
            value.key: value.new
            for value in list(self._open[run_id].values())
            if self._is_to_write(value, now.get(value.key))
        })  # fmt: skip

    def _refusal(self, node: Node) -> tuple[Event, str] | None:
        if node.get("readOnly"):
            return "failed", "read-only"
        if node.get("state") in OPEN_STATES and not self.writer.include_running:
            return "conflict", f"{node['state']} again"
        try:
            read_values(node, self.writer.target)
        except MalformedResponse:
            return "failed", "unreadable"
        return None

    def _is_to_write(self, value: PlannedValue, now: str | None) -> bool:
        if same_json(now, value.new):
            event: Event = "written" if self.writer.is_resumed else "unchanged"
            self._close(value, event, "was there already")
            return False
        if not same_json(now, value.old):
            self._close(value, "conflict", "changed by another writer since the plan")
            return False
        return True

    def _read_again(
        self, number: int, base: Mapping[str, Node], edits: Mapping[str, Edit]
    ) -> tuple[dict[str, Node], dict[str, Edit]]:
        """Let the others finish, then keep of the edits what nobody has cared for meanwhile."""
        edits = {run_id: edit for run_id, edit in edits.items() if edit}
        if not edits:
            return {}, {}
        # Writers that repair in step would undo each other for ever.
        time.sleep(random.uniform(0, min(MAX_PAUSE_S, 0.05 * 2**number)))  # noqa: S311 - no secret
        fresh = self._fetch(edits)
        return fresh, {
            run_id: self._still_open(run_id, edit, base[run_id], fresh.get(run_id))
            for run_id, edit in edits.items()
        }

    def _still_open(self, run_id: str, edit: Edit, base: Node, node: Node | None) -> Edit:
        if node is None:
            self._close_run(run_id, "gone", "the run was deleted")
            return Edit()
        around = Around(self.writer.target, Edit(), base, None, node)
        kept = Edit(
            theirs={key: text for key, text in edit.theirs.items() if around.is_as_read(key)}
        )
        for value in [self._open[run_id][key] for key in edit.ours]:
            if around.is_written(value):
                self._close(value, "written", None)
            elif around.is_untouched(value):
                kept.ours[value.key] = value.new
            else:
                self._close(value, "conflict", "changed by another writer after we wrote")
        return kept

    def _round(
        self, base: Mapping[str, Node], edits: Mapping[str, Edit]
    ) -> tuple[dict[str, Node], dict[str, Edit]]:
        """Send, read back; returns the runs as they are now and what must be written again."""
        try:
            before, error = self.writer.send(base, edits)
        finally:
            self.window_s = max(self.window_s, time.monotonic() - self._read_at)
        self._is_in_doubt = True
        after = self._fetch(edits)
        again: dict[str, Edit] = {}
        for run_id, edit in edits.items():
            if (node := after.get(run_id)) is None:
                self._close_run(run_id, "gone", "the run was deleted")
                continue
            around = Around(self.writer.target, edit, base[run_id], before.get(run_id), node)
            again[run_id] = self._settle(run_id, edit, around)
            if node.get("readOnly"):
                self._close_run(run_id, "failed", "read-only")
                again[run_id] = Edit()
        self._is_in_doubt = False
        if isinstance(error, OutcomeUnknown):
            self._doubt(error, again)
        elif error is not None:
            self._give_up(error, again)
        return after, again

    def _settle(self, run_id: str, edit: Edit, around: Around) -> Edit:
        """Close what is there as it should be; return what must be written once more."""
        again = Edit(theirs=around.lost_members())
        self.repaired += around.put_back()
        for value in [self._open[run_id][key] for key in edit.ours]:
            if around.is_contested(value):
                self._close(value, "conflict", "changed by another writer while we wrote")
                if around.is_written(value):
                    again.theirs[value.key] = around.contested(value)
            elif around.is_written(value):
                self._close(value, "written", None)
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
        """The server refused single runs: they are not tried again. If it refused all, raise."""
        if again and all(again.values()):
            raise error
        for run_id in [run_id for run_id, edit in again.items() if edit]:
            self._close_run(run_id, "failed", f"{type(error).__name__}: {error}")
            del again[run_id]

    def _close(self, value: PlannedValue, event: Event, note: str | None) -> None:
        del self._open[value.run_id][value.key]
        self.outcomes.append((value, event, note))

    def _close_run(self, run_id: str, event: Event, note: str) -> None:
        for value in list(self._open[run_id].values()):
            self._close(value, event, note)

    def _close_rest(self, event: Event, note: str) -> None:
        for run_id in self._open:
            self._close_run(run_id, event, note)
