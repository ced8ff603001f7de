"""The append-only record of every write: intent before it, outcome after it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, cast, get_args

import pyarrow as pa
import pyarrow.compute as pc

from wb_ops.backfill.planned import PlannedValue
from wb_ops.backfill.targets import Target
from wb_ops.client.comparison import holds
from wb_ops.errors import InvalidRequest
from wb_ops.tables.schemas import BACKFILLS
from wb_ops.warehouse import Owner, Warehouse

# `written`, `unchanged` (it was there already), `conflict` (another writer's value was left
# alone) and `gone` (the run was deleted) are final. `unverified`, `failed` (refused) and `not_sent`
# (an error that may pass came before the write) can be tried again. A member of another writer that
# a write of ours has replaced is `owed`: `old_value` is what our write left, `new_value` what was
# there. It is `settled` when it is there again, or nobody can put it back any more.
Event = Literal[
    "intent", "written", "unchanged", "conflict", "gone", "unverified", "failed", "not_sent",
    "owed", "settled",
]  # fmt: skip
Outcome = tuple[PlannedValue, Event, str | None]
TABLE = "_wb_backfills"
# How the note of an undo's intents begins; the id of what it takes back follows.
UNDO_OF = "undo of "
OF_OTHERS = frozenset({"owed", "settled"})
FINAL = frozenset({"written", "unchanged", "conflict", "gone", "settled"})


@dataclass(frozen=True, slots=True)
class Entry:
    """One value of one backfill: its first intent, and the last thing that is known of it."""

    run_id: str
    target: Target
    key: str
    old: str | None
    new: str | None
    event: Event
    recorded_at: datetime


@dataclass(frozen=True, slots=True)
class BackfillRecord:
    """One backfill as the journal knows it; times are UTC, `counts` are values by last event.

    `undo_of` is the id of the backfill that it takes back, if it is an undo.
    """

    backfill_id: str
    target: Target
    started_at: datetime
    ended_at: datetime
    runs: int
    counts: dict[str, int]
    undo_of: str | None = None

    @property
    def is_finished(self) -> bool:
        """Whether no value waits for `resume`."""
        return set(self.counts) <= FINAL


@dataclass(frozen=True, slots=True)
class Journal:
    """Appends to `_wb_backfills` of one dataset; each append is durable when it returns."""

    warehouse: Warehouse
    dataset: str
    backfill_id: str
    owner: Owner

    @property
    def is_begun(self) -> bool:
        """Whether it has lines of this backfill: a stored plan can be executed again."""
        ids = _read(self.warehouse, self.dataset)["backfill_id"]
        return bool(pc.any(pc.equal(ids, self.backfill_id)).as_py())

    def intend(self, values: Iterable[PlannedValue], undo_of: str | None = None) -> None:
        """Append what will be written, and which backfill that takes back."""
        note = f"{UNDO_OF}{undo_of}" if undo_of else None
        self.record([(value, "intent", note) for value in values])

    def record(self, outcomes: Iterable[Outcome]) -> None:
        """Append one line for each value, in one transaction."""
        now = datetime.now(UTC)
        rows = [
            {
                "backfill_id": self.backfill_id,
                "run_id": value.run_id,
                "target": value.target,
                "key": value.key,
                "event": event,
                "old_value": value.old,
                "new_value": value.new,
                "note": note,
                "recorded_at": now,
            }
            for value, event, note in outcomes
        ]
        if rows:
            lines = pa.Table.from_pylist(rows, schema=BACKFILLS)
            self.warehouse.append(self.dataset, TABLE, lines, owner=self.owner)


def read_entries(warehouse: Warehouse, dataset: str, backfill_id: str) -> list[Entry]:
    """Return the values of one backfill with the last event of each.

    Raises:
        InvalidRequest: the dataset's journal has no such backfill (retry: never).
    """
    table = _read(warehouse, dataset)
    lines = table.filter(pc.equal(table["backfill_id"], backfill_id)).to_pylist()
    if not lines:
        raise InvalidRequest(
            f"The journal of dataset {dataset!r} has no backfill {backfill_id!r}: "
            "list_backfills() names those that it has."
        )
    return _entries(lines)


def last_written(
    warehouse: Warehouse, dataset: str, target: Target, now: Callable[[str, str], str | None]
) -> dict[tuple[str, str], Entry]:
    """Return for each (run id, key) what a backfill wrote last and no undo took back.

    `now(run_id, key)` is what the run holds: a value whose write may have come through before its
    outcome was recorded counts where the run holds it.

    What an undo restored is of whoever had written it: of an earlier backfill, or of nobody here.
    """
    table = _read(warehouse, dataset)
    lines = table.filter(pc.equal(table["target"], target)).to_pylist()
    lines = [line for line in lines if line["event"] not in OF_OTHERS]
    undone = _undone(lines)
    held: dict[tuple[str, str], Entry | None] = {}
    replaced: dict[tuple[str, str, str], Entry | None] = {}
    written = [line for line in lines if line["event"] == "written"]
    written += [line for line in _unsettled(lines) if _is_held(line, now)]
    for line in sorted(written, key=lambda line: line["recorded_at"]):
        cell, backfill_id = (line["run_id"], line["key"]), line["backfill_id"]
        # A resumed backfill may have written a value twice.
        replaced.setdefault((backfill_id, *cell), held.get(cell))
        is_undo = backfill_id in undone
        held[cell] = replaced.get((undone[backfill_id], *cell)) if is_undo else _entry(line, line)
    return {cell: entry for cell, entry in held.items() if entry is not None}


def _unsettled(lines: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The last line of each value of each backfill that is not settled."""
    latest: dict[tuple[str, ...], dict[str, Any]] = {}
    for line in sorted(lines, key=_by_time):
        cell = (line["backfill_id"], line["run_id"], line["key"])
        if cell not in latest or latest[cell]["event"] not in FINAL:
            latest[cell] = line
    return [line for line in latest.values() if line["event"] not in FINAL]


def _is_held(line: Mapping[str, Any], now: Callable[[str, str], str | None]) -> bool:
    return holds(now(line["run_id"], line["key"]), line["new_value"])


def _by_time(line: Mapping[str, object]) -> tuple[object, bool, bool]:
    """Lines of one append share their time: an outcome comes after its intent.

    What is settled and owed at the same time is taken for owed.
    """
    return line["recorded_at"], line["event"] != "intent", line["event"] == "owed"


def list_backfills(warehouse: Warehouse, dataset: str) -> list[BackfillRecord]:
    """Return every backfill of a dataset's journal, the newest first; no request."""
    lines: dict[str, list[dict[str, object]]] = {}
    for line in _read(warehouse, dataset).to_pylist():
        lines.setdefault(line["backfill_id"], []).append(line)
    records = (_record(backfill_id, some) for backfill_id, some in lines.items())
    return sorted(records, key=lambda record: record.started_at, reverse=True)


def _record(backfill_id: str, lines: list[dict[str, object]]) -> BackfillRecord:
    entries = _entries(lines)
    moments = [cast(datetime, line["recorded_at"]) for line in lines]
    return BackfillRecord(
        backfill_id=backfill_id,
        target=entries[0].target,
        started_at=min(moments),
        ended_at=max(moments),
        runs=len({entry.run_id for entry in entries}),
        counts=dict(sorted(Counter(entry.event for entry in entries).items())),
        undo_of=_undone(lines).get(backfill_id),
    )


def _undone(lines: Iterable[Mapping[str, object]]) -> dict[str, str]:
    """The id of an undo -> the id of what it takes back."""
    return {
        str(line["backfill_id"]): str(line["note"]).removeprefix(UNDO_OF)
        for line in lines
        if line["event"] == "intent" and str(line["note"]).startswith(UNDO_OF)
    }


def _entries(lines: list[dict[str, object]]) -> list[Entry]:
    first: dict[tuple[object, ...], dict[str, object]] = {}
    latest: dict[tuple[object, ...], dict[str, object]] = {}
    for line in sorted(lines, key=_by_time):
        is_of_others = line["event"] in OF_OTHERS
        cell = (line["run_id"], line["target"], line["key"], is_of_others)
        if is_of_others:
            # What is owed there may change, and be owed again.
            first[cell] = latest[cell] = line
            continue
        first.setdefault(cell, line)
        # A value that is written stays so, whatever a later attempt says of it.
        if cell not in latest or latest[cell]["event"] not in FINAL:
            latest[cell] = line
    return [_entry(first[cell], latest[cell]) for cell in sorted(first, key=str)]


def _entry(first: dict[str, object], latest: dict[str, object]) -> Entry:
    target, event = str(first["target"]), str(latest["event"])
    if target not in get_args(Target) or event not in get_args(Event):
        raise InvalidRequest(f"The journal has a line that this wb_ops does not know: {first}.")
    old, new = first["old_value"], first["new_value"]
    return Entry(
        run_id=str(first["run_id"]),
        target=cast(Target, target),
        key=str(first["key"]),
        old=None if old is None else str(old),
        new=None if new is None else str(new),
        event=cast(Event, event),
        recorded_at=cast(datetime, latest["recorded_at"]),
    )


def _read(warehouse: Warehouse, dataset: str) -> pa.Table:
    return warehouse.read_tables(dataset, [TABLE])[TABLE]
