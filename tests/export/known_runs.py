"""What runs must be in a warehouse after an export, by what was done to them on the server."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any


@dataclass
class Known:
    """A run, and what each export is bound to know of it.

    Attributes:
        rows: logged cells by step; `lines` counts a step that was logged twice as two.
        events: values of its system metrics.
        unseen: scopes that have not seen its last edit, which no heartbeat tells of.
        is_young: whether its `updatedAt` is that of an edit.
        is_held: whether an export had to write it; `has_all_keys`: with all its metrics.
        is_held_running: whether it was running then.
    """

    run_id: str
    created_at: datetime
    state: str = "finished"
    rows: dict[int, dict[str, float]] = field(default_factory=dict)
    lines: int = 0
    events: int = 0
    shown: dict[str, Any] = field(default_factory=dict)
    is_gone: bool = False
    unseen: set[str] = field(default_factory=set)
    is_young: bool = False
    is_held: bool = False
    is_held_running: bool = False
    has_all_keys: bool = False

    def log(self, rows: list[dict[str, float]]) -> None:
        """Take in rows; of a step that is there already the later cells win."""
        self.lines += len(rows)
        for row in rows:
            step = int(row["_step"])
            cells = {key: value for key, value in row.items() if key in ("x", "y")}
            self.rows[step] = {**self.rows.get(step, {}), **cells}

    def edit(self, fields: Mapping[str, Any]) -> None:
        """Take in an edit; config and summary are replaced whole."""
        for name, value in fields.items():
            self.shown |= value if name in ("config", "summary") else {name: value}

    def row(self) -> dict[str, Any]:
        """The run in the table `runs`."""
        unset = {"display_name": self.run_id, "notes": None, "tags": [], "lr": None, "best": None}
        counted = {"run_id": self.run_id, "state": self.state, "history_rows": self.lines}
        return {**counted, **unset, **self.shown}

    def history(self) -> list[dict[str, Any]]:
        """Its rows in the table `history`."""
        return [
            {"run_id": self.run_id, "_step": step, "x": row.get("x"), "y": row.get("y")}
            for step, row in sorted(self.rows.items())
        ]


@dataclass(frozen=True)
class Scope:
    """Which runs a request asks for, and what may be concluded from their listing.

    Attributes:
        asked: the fields of the request.
        holds: whether a run is in it.
        sees_deletions: whether a whole listing of it tells which runs are gone.
        is_partial: a window of creation, or named runs, which moves no watermark.
    """

    name: str
    asked: dict[str, Any] = field(default_factory=dict)
    holds: Callable[[Known], bool] = lambda _: True
    sees_deletions: bool = True
    is_partial: bool = False

    def promised(self, runs: list[Known], mode: str, *, is_asked_for_edits: bool) -> list[Known]:
        """The runs that the warehouse holds as they are after an export that ran in this mode."""
        finds_edits = mode != "incremental" or is_asked_for_edits
        return [
            run
            for run in runs
            if not run.is_gone and self.holds(run) and (finds_edits or self.name not in run.unseen)
        ]

    def concluded(self, runs: list[Known], mode: str) -> list[Known]:
        """The runs that it must find to be gone."""
        if mode == "incremental" or not self.sees_deletions:
            return []
        # Under the id of a run of the window the warehouse may hold one that was made elsewhen.
        return [
            run
            for run in runs
            if run.is_gone and self.holds(run) and (run.is_held or not self.is_partial)
        ]


_SCOPES = (
    Scope("whole"),
    Scope("keys", {"keys": ("x",)}),
    Scope("system", {"tables": ("runs", "history", "system_metrics")}),
    Scope("states", {"states": ("finished",)}, lambda run: run.state == "finished", False),
    Scope("filters", {"filters": {"tags": "best"}},
          lambda run: run.shown.get("tags") == ["best"], False),
)  # fmt: skip
SCOPES = {scope.name: scope for scope in _SCOPES}


def window(since: datetime, until: datetime | None) -> Scope:
    """The runs that were created from `since` on and before `until`."""
    return Scope(
        "window",
        {"since": since, "until": until},
        lambda run: since <= run.created_at and (until is None or run.created_at < until),
        is_partial=True,
    )


def named(run_ids: set[str]) -> Scope:
    """The runs of these ids."""
    asked = {"run_ids": tuple(run_ids)}
    return Scope("named", asked, lambda run: run.run_id in run_ids, is_partial=True)
