"""What the server of one schedule holds, how it goes wrong by a seed, in a time of its own."""

from __future__ import annotations

import json
import random
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

Row = dict[str, Any]
# A state may be one that nobody knew of.
STATES = ("finished", "finished", "crashed", "preempting", "hibernating")


class Clock:
    """Time in which a sleep takes no time; it never goes back."""

    def __init__(self) -> None:
        self._ahead_s = 0.0
        self._lock = threading.Lock()

    def __call__(self) -> float:
        return time.monotonic() + self._ahead_s

    def sleep(self, seconds: float) -> None:
        until = self() + seconds
        with self._lock:
            self._ahead_s = max(self._ahead_s, until - time.monotonic())


@dataclass
class ExportedFile:
    """A parquet file, and the rows that it holds in the order of the file."""

    rows: list[Row]
    content: bytes

    @property
    def first_step(self) -> int:
        return min((row["_step"] for row in self.rows), default=0)


@dataclass(eq=False)
class SimulatedRun:
    """A run: how it may be listed, what it logged, which of it is exported, its documents.

    `rows` are what it logged and `lines` their JSON, in order; rows from `first_live` on are not
    exported, or not only. `kinds` says of each key what it holds.
    """

    name: str
    versions: list[str]
    rows: list[Row] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    files: list[ExportedFile] = field(default_factory=list)
    first_live: int | None = None
    kinds: dict[str, str] = field(default_factory=dict)
    as_text: set[str] = field(default_factory=set)
    is_poison: bool = False
    is_deleted: bool = False
    may_export: bool = False
    appended: list[Row] = field(default_factory=list)
    state: str = "finished"
    beat: int = 0
    config: str = "{}"
    summary: str = "{}"
    tags: list[str] = field(default_factory=list)
    notes: str | None = None

    def add(self, row: Row, line: str | None = None) -> None:
        self.rows.append(row)
        self.lines.append(json.dumps(row) if line is None else line)

    @property
    def live_rows(self) -> list[Row]:
        first = self.first_live
        return [] if first is None else [row for row in self.rows if row["_step"] >= first]

    def node(self) -> dict[str, Any]:
        """The run as a listing gives it: name, config and summary are of one version."""
        version = self.versions[-1]
        told = json.dumps(version)
        return {
            "id": f"id-{self.name}", "name": self.name, "displayName": version,
            "state": self.state,
            "config": self.config if self.config != "{}" else f'{{"v": {{"value": {told}}}}}',
            "summaryMetrics": self.summary if self.summary != "{}" else
            f'{{"v": {told}, "x": NaN, "low": -Infinity, "big": 9007199254740993}}',
            "tags": self.tags or None, "notes": self.notes,
            "user": {"name": "Ann", "username": "ann"}, "historyLineCount": len(self.rows),
            "createdAt": "2026-01-01T00:00:00", "historyKeys": None, "surprise": [1],
        }  # fmt: skip


@dataclass
class Limit:
    """When the next request may come, what each connection was told, and what came since."""

    not_before: float = 0.0
    told: dict[object, float] = field(default_factory=dict)
    since: Counter[object] = field(default_factory=Counter)


@dataclass
class World:
    """What one schedule's server holds, and how it goes wrong.

    `cursor_kind`: "keyset" cursors name a run, those that count "positions" shift with what is
    before them. `has_stable_cursors`: a place has one cursor, and not another one in each answer.
    """

    seed: int
    clock: Clock
    rng: random.Random
    fault_rate: float
    kinds: list[str]
    storage: str = ""
    base_url: str = ""
    runs: list[SimulatedRun] = field(default_factory=list)
    cursor_kind: str = "keyset"
    has_stable_cursors: bool = True
    has_parquet: bool = True
    takes_many: bool = True
    is_inclusive: bool = False
    longest_page: int = 1000
    violations: list[str] = field(default_factory=list)
    injected: Counter[str] = field(default_factory=Counter)
    requests: int = 0
    writes: int = 0
    beats: int = 0
    others: dict[str, list[str]] = field(default_factory=dict)
    lock: Any = field(default_factory=threading.RLock)
    limits: dict[object, Limit] = field(default_factory=dict)

    def limit(self, connection: Any) -> Limit:
        """The limit of the server (API or storage) of a connection."""
        return self.limits.setdefault(connection.server, Limit())

    def arrive(self, connection: Any) -> None:
        """Check that whoever was told to wait has waited.

        What others had sent before they could know is in flight: two requests a connection.
        """
        self.requests += 1
        limit = self.limit(connection)
        if self.clock() >= limit.not_before - 0.05:
            limit.since.clear()
            return
        limit.since[connection] += 1
        own = limit.told.get(connection, 0.0)
        if self.clock() < own - 0.05 or limit.since[connection] > 2:
            early_s = max(own, limit.not_before) - self.clock()
            self.violations.append(f"a request {early_s:.2f} s before Retry-After had passed")

    def ask_to_wait(self, seconds: float, connection: Any) -> None:
        limit = self.limit(connection)
        limit.not_before = max(limit.not_before, self.clock() + seconds)
        limit.told[connection] = self.clock() + seconds

    def fault(self, allowed: set[str]) -> str | None:
        chosen = [kind for kind in self.kinds if kind in allowed]
        if not chosen or self.rng.random() >= self.fault_rate:
            return None
        kind = self.rng.choice(chosen)
        self.injected[kind] += 1
        return kind

    def named(self, name: str) -> SimulatedRun | None:
        return next((run for run in self.runs if run.name == name and not run.is_deleted), None)

    def listed(self, order: str, names: list[str] | None = None) -> list[SimulatedRun]:
        """The runs that there are, or some of them, in an order."""
        alive = [run for run in self.runs if not run.is_deleted]
        alive.sort(key=lambda run: self._rank(run, order), reverse=order.startswith("-"))
        return [run for run in alive if names is None or run.name in names]

    def cursor_after(self, order: str, place: int, run: SimulatedRun) -> str:
        return str(place + 1 if self.cursor_kind == "positions" else self._rank(run, order))

    def place_after(self, cursor: str | None, order: str, listed: list[SimulatedRun]) -> int:
        """Where a listing goes on; the run that a cursor names may have gone or moved since."""
        told = (cursor or "start").partition("~")[0].strip("+")
        if told == "start":
            return 0
        if self.cursor_kind == "positions":
            return int(told)
        ranks = [self._rank(run, order) for run in listed]
        sign = -1 if order.startswith("-") else 1
        return sum(sign * rank <= sign * int(told) for rank in ranks)

    def _rank(self, run: SimulatedRun, order: str) -> int:
        number = self.runs.index(run)
        return run.beat * 10**6 + number if "heartbeat" in order else number

    def change(self, operation: str | None) -> None:
        """Somebody else's edits, creations, deletions, new rows and exports.

        Nobody edits between the reading before a write and the write: W&B replaces a document
        whole, and what others write in that moment is lost to any client.
        """
        kind = self.fault({"edit", "create", "delete", "append", "export", "member"})
        alive = [run for run in self.runs if not run.is_deleted]
        run = self.rng.choice(alive) if alive else None
        if kind == "create":
            self.beats += 1
            name = f"new{len(self.runs)}"
            self.runs.append(SimulatedRun(name, [f"{name} v0"], beat=self.beats))
        if run is None:
            return
        if kind == "edit":
            self.beats += 1
            run.beat = self.beats
            run.versions.append(f"{run.name} v{len(run.versions)}")
        elif kind == "delete" and len(alive) > 2:
            run.is_deleted = True
        elif kind == "append" and run.first_live is not None:
            self._append(run)
        elif kind == "export" and run.may_export and run.first_live is not None:
            self._export(run)
        elif kind == "member" and run.config != "{}" and operation in ("Run", "Runs"):
            self._write_member(run)

    def _append(self, run: SimulatedRun) -> None:
        row = {"_step": (run.rows[-1]["_step"] if run.rows else 0) + 1}
        # A key with a dot may be logged as an object, and beside one a name would mean two things.
        floats = [key for key, kind in run.kinds.items() if kind == "float" and "." not in key]
        row |= dict.fromkeys(floats, 0.5)
        run.add(row)
        run.appended.append(row)

    def _export(self, run: SimulatedRun) -> None:
        """Export some of the live rows, never the last one."""
        from simulated_histories import exported_file

        steps = sorted({row["_step"] for row in run.live_rows})
        if len(steps) < 3 or run.first_live is None:
            return
        first = self.rng.choice(steps[1:-1])
        rows = [row for row in run.live_rows if row["_step"] < first]
        # A file has one type for each column: no row may lose a cell by its export.
        file = exported_file(self.rng, rows, run.kinds, is_shuffled=False)
        if file.rows == rows:
            run.files.append(file)
            run.first_live = first

    def _write_member(self, run: SimulatedRun) -> None:
        """Add a member to each document, in JSON that no program writes like that."""
        told = self.others.setdefault(run.name, [])
        number = len(told) + 1
        raw = self.rng.choice(
            [f"{number}7.50", f"1e40{number}", f'"\\u0041{number}"', f'"tab\t{number}"',
             f'{{"deep":[{number}1.0,NaN]}}', f"{number}1234567890123456789012"]
        )  # fmt: skip
        told.append(raw)
        run.summary = _with_member(run.summary, f"theirs{number}", raw)
        run.config = _with_member(run.config, f"theirs{number}", f'{{"value":{raw},"desc": null}}')
        run.tags.append(f"theirs{number}")


def _with_member(document: str, name: str, raw: str) -> str:
    head = document.rstrip().removesuffix("}").rstrip()
    comma = "" if head.endswith("{") else " ,"
    return f"{head}{comma}{json.dumps(name)}:{raw} }}"


def merged(parts: list[list[Row]]) -> dict[int, Row]:
    """One row a step: of each key the last value, in the order of the parts and of their rows."""
    rows: dict[int, Row] = {}
    for row in (row for part in parts for row in part):
        logged = {key: value for key, value in row.items() if value is not None}
        rows.setdefault(row["_step"], {}).update(logged)
    return dict(sorted(rows.items()))


def truth(run: SimulatedRun) -> dict[int, Row]:
    """What a run's history is: its files by their first steps, then what is live."""
    files = sorted(run.files, key=lambda file: file.first_step)
    return merged([*(file.rows for file in files), run.live_rows])
