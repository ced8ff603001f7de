"""What may happen to the runs of a project, on a dev server whose clock lies in the past.

Time passes with each event: what a run does moves its heartbeat. Only an edit has the time of the
machine, as the time of the last reconcile has, to which an export compares it.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule
from known_runs import Known

from wb_ops.devserver import DevServer

IDS = ("a", "b", "c")
EDITS: tuple[dict[str, Any], ...] = (
    {"tags": ["best"]}, {"tags": ["bad"]}, {"notes": "look again"}, {"notes": None},
    {"display_name": "renamed"}, {"display_name": "renamed again"},
    {"config": {"lr": 0.1}}, {"config": {"lr": 1e-300}}, {"summary": {"best": 2.0**60}},
)  # fmt: skip
LONG_AGO, START = (datetime(year, 1, 1, 0, 0, 0, 123456, tzinfo=UTC) for year in (2024, 2025))
BETWEEN_EVENTS = timedelta(minutes=7, seconds=1)
# What happens now and is listed with a time of before the last export's watermark.
LAG = timedelta(minutes=25)
_projects, _times = count(), count(1.7e9)


class ChangingProject(RuleBasedStateMachine):
    """Makes, logs, resumes, edits and deletes runs, and knows what they are.

    Attributes:
        runs: all that were ever made, by id; of those of one id the last.
        exported: names of the scopes that were exported, which must see an edit from now on.
    """

    server: DevServer

    def __init__(self) -> None:
        super().__init__()
        self.path = "ann", f"p{next(_projects)}"
        self.now = START
        self.runs: dict[str, Known] = {}
        self.exported: set[str] = set()

    @rule(
        run_id=st.sampled_from(IDS), rows=st.integers(0, 6), running=st.booleans(),
        events=st.integers(0, 2), reports=st.booleans(), late=st.booleans(),
    )  # fmt: skip
    def start(
        self, run_id: str, rows: int, running: bool, events: int, reports: bool, late: bool
    ) -> None:
        """A new run, or one made anew under the id of a deleted one."""
        if run_id not in self.runs or self.runs[run_id].is_gone:
            self.make(run_id, rows, "running" if running else "finished", events, reports, late)

    def make(
        self, run_id: str, rows: int, state: str, events: int = 0, reports: bool = True,
        late: bool = False,
    ) -> None:  # fmt: skip
        """One that does not report was made just now, and its heartbeat is long ago."""
        run = Known(run_id, self.moment(late), state, events=events)
        history: list[dict[str, float]] = [{"_step": step, "x": step + 0.5} for step in range(rows)]
        self.server.seed_run(
            *self.path, run_id, state=state, history=history, created_at=run.created_at,
            heartbeat_at=run.created_at if reports else LONG_AGO, updated_at=LONG_AGO,
            events=[{"_timestamp": 1.7e9 + tick, "system.cpu": 1.0} for tick in range(events)],
        )  # fmt: skip
        run.log(history)
        self.runs[run_id] = run

    @rule(
        run_id=st.sampled_from(IDS), rows=st.integers(1, 5), again=st.booleans(), y=st.booleans(),
        late=st.booleans(),
    )  # fmt: skip
    def log(self, run_id: str, rows: int, again: bool, y: bool, late: bool) -> None:
        """More rows, of a run that has ended too (resumed); `again`: the last step once more."""
        run = self.found(run_id)
        if run is None:
            return
        first = max(run.rows, default=-1) + (0 if again and run.rows else 1)
        new: list[dict[str, float]] = [
            # What is logged again was logged at another time.
            {"_step": step, "_timestamp": next(_times), "x": step * 2.0} | ({"y": 1.0} if y else {})
            for step in range(first, first + rows)
        ]
        self.server.append_history(*self.path, run_id, new)
        run.log(new)
        self.report(run, late)

    @rule(run_id=st.sampled_from(IDS), late=st.booleans())
    def finish(self, run_id: str, late: bool) -> None:
        if (run := self.found(run_id, "running")) is not None:
            run.state, run.is_held_running = "finished", False
            self.report(run, late)

    @rule(run_id=st.sampled_from(IDS), late=st.booleans())
    def resume(self, run_id: str, late: bool) -> None:
        if (run := self.found(run_id, "finished", "crashed")) is not None:
            run.state = "running"
            self.report(run, late)

    @rule()
    def crash(self) -> None:
        """The machine dies on which runs are running.

        No time of the server's tells of it, so it must be known that they were running.
        """
        for run in self.runs.values():
            if run.is_held_running and run.state == "running" and not run.is_gone:
                run.state = "crashed"
                self.server.edit_run(
                    *self.path, run.run_id, state=run.state,
                    updated_at=datetime.now(UTC) if run.is_young else LONG_AGO,
                )  # fmt: skip

    @rule(run_id=st.sampled_from(IDS), fields=st.sampled_from(EDITS))
    def edit(self, run_id: str, fields: dict[str, Any]) -> None:
        if (run := self.found(run_id)) is not None:
            self.server.edit_run(*self.path, run_id, **fields)
            run.edit(fields)
            run.is_young, run.unseen = True, set(self.exported)

    @rule(run_id=st.sampled_from(IDS))
    def delete(self, run_id: str) -> None:
        if (run := self.found(run_id)) is not None:
            self.server.delete_run(*self.path, run_id)
            run.is_gone = True

    def found(self, run_id: str, *states: str) -> Known | None:
        """The run, if it is there and in one of these states."""
        run = self.runs.get(run_id)
        fits = run is not None and not run.is_gone and (not states or run.state in states)
        return run if fits else None

    def report(self, run: Known, late: bool = False) -> None:
        """Its heartbeat tells of all that was done to it until now."""
        moment = self.moment(late)
        self.server.edit_run(
            *self.path, run.run_id, state=run.state, heartbeat_at=moment, updated_at=LONG_AGO
        )
        run.is_young, run.unseen = False, set()

    def moment(self, late: bool = False) -> datetime:
        """The time of what happens now, on a server that shows it late."""
        self.now += BETWEEN_EVENTS
        return self.now - LAG if late else self.now
