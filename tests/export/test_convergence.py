"""Whatever happens to the runs between exports: the warehouse ends equal to the server."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    precondition,
    rule,
    run_state_machine_as_test,
)

from wb_ops import (
    Api,
    ExportRequest,
    Warehouse,
    commit_plan,
    connect,
    execute_export,
    execute_shard,
    plan_export,
)
from wb_ops.devserver import DevServer

EXAMPLES = int(os.environ.get("WB_OPS_EXAMPLES", "3"))
STEPS = int(os.environ.get("WB_OPS_STEPS", "10"))
IDS = ("a", "b", "c")
EDITS = """
    select run_id, state, tags, cast(config->>'lr' as double precision) as lr,
        cast(summary->>'best' as double precision) as best
    from runs where deleted_at is null order by run_id"""
_projects, _times = count(), count(1.7e9)


@dataclass
class Known:
    """What a run must be in the warehouse: rows by step, edits, and whether it is there."""

    rows: dict[int, dict[str, float]] = field(default_factory=dict)
    tags: list[str] = field(default_factory=list)
    lr: float | None = None
    best: float | None = None
    running: bool = False
    is_gone: bool = False


class Project(RuleBasedStateMachine):
    """Logs, resumes, edits and deletes runs, and exports in between."""

    server: DevServer
    new_warehouse: Callable[[Path], Warehouse]

    def __init__(self) -> None:
        super().__init__()
        self.project = f"p{next(_projects)}"
        self.folder = TemporaryDirectory(prefix="wb_ops-convergence-")
        self.api = Api({"base_url": self.server.url}, api_key=self.server.api_key)
        self.warehouse = self.new_warehouse(Path(self.folder.name))
        self.request = ExportRequest("ann", self.project, max_cells=200)
        self.runs: dict[str, Known] = {}
        self.server.seed_run("ann", self.project, "anchor", history=[{"_step": 0, "x": 0.0}])
        self.runs["anchor"] = Known({0: {"x": 0.0}})

    def teardown(self) -> None:
        self.export("reconcile", shards=0)
        self.compare(sees_deletions=True)
        self.api.close()
        self.folder.cleanup()

    @rule(run_id=st.sampled_from(IDS), rows=st.integers(0, 6), running=st.booleans())
    def start(self, run_id: str, rows: int, running: bool) -> None:
        """A new run, or one made anew under the id of a deleted one."""
        if run_id in self.runs and not self.runs[run_id].is_gone:
            return
        history = [{"_step": step, "x": step + 0.5} for step in range(rows)]
        state = "running" if running else "finished"
        self.server.seed_run("ann", self.project, run_id, state=state, history=history)
        self.runs[run_id] = Known(
            {row["_step"]: {"x": row["x"]} for row in history}, running=running
        )

    @rule(run_id=st.sampled_from(IDS), rows=st.integers(1, 5), again=st.booleans(), y=st.booleans())
    def log(self, run_id: str, rows: int, again: bool, y: bool) -> None:
        """More rows, of a run that has ended too (resumed); `again`: the last step once more."""
        run = self.runs.get(run_id)
        if run is None or run.is_gone:
            return
        first = max(run.rows, default=-1) + (0 if again and run.rows else 1)
        new = [
            # What is logged again was logged at another time.
            {"_step": step, "_timestamp": next(_times), "x": step * 2.0} | ({"y": 1.0} if y else {})
            for step in range(first, first + rows)
        ]
        self.server.append_history("ann", self.project, run_id, new)
        for row in new:
            step = int(row.pop("_step"))
            run.rows[step] = {**run.rows.get(step, {}), **row}

    @rule(run_id=st.sampled_from(IDS))
    def finish(self, run_id: str) -> None:
        run = self.runs.get(run_id)
        if run is not None and run.running and not run.is_gone:
            self.server.finish_run("ann", self.project, run_id)
            run.running = False

    @rule(run_id=st.sampled_from(IDS))
    def resume(self, run_id: str) -> None:
        run = self.runs.get(run_id)
        if run is not None and not run.running and not run.is_gone:
            self.server.set_state("ann", self.project, run_id, "running")
            run.running = True

    @rule(run_id=st.sampled_from(IDS), tag=st.sampled_from(["best", "bad"]))
    def tag(self, run_id: str, tag: str) -> None:
        run = self.runs.get(run_id)
        if run is not None and not run.is_gone:
            self.server.edit_run("ann", self.project, run_id, tags=[tag])
            run.tags = [tag]

    @rule(run_id=st.sampled_from(IDS), value=st.sampled_from([0.1, 1e-300, 2.0**60]))
    def edit(self, run_id: str, value: float) -> None:
        """Its config and its summary."""
        run = self.runs.get(run_id)
        if run is not None and not run.is_gone:
            self.server.edit_run(
                "ann", self.project, run_id, config={"lr": value}, summary={"best": -value}
            )
            run.lr, run.best = value, -value

    @rule(run_id=st.sampled_from(IDS))
    def delete(self, run_id: str) -> None:
        run = self.runs.get(run_id)
        if run is not None and not run.is_gone:
            self.server.delete_run("ann", self.project, run_id)
            run.is_gone = True

    @precondition(lambda self: len(self.runs) > 1)
    @rule(mode=st.sampled_from(["incremental", "reconcile", "full"]), shards=st.integers(0, 2))
    def export_and_compare(self, mode: str, shards: int) -> None:
        self.export(mode, shards)
        self.compare(sees_deletions=mode != "incremental")

    def export(self, mode: Any, shards: int) -> None:
        request = replace(self.request, mode=mode)
        if not shards:
            execute_export(plan_export(request, self.api, self.warehouse), self.api, self.warehouse)
            return
        plan = plan_export(request, self.api, self.warehouse, self.folder.name)
        assert plan.uri is not None
        for shard in plan.shards(shards):
            execute_shard(plan.uri, shard, self.api)
        commit_plan(plan.uri, self.api, self.warehouse)

    def compare(self, *, sees_deletions: bool) -> None:
        """Histories and edits always; deletions where the whole listing was compared."""
        there = {run_id: run for run_id, run in self.runs.items() if not run.is_gone}
        columns = {row["column_name"] for row in self.ask("select column_name from _wb_columns")}
        y = "y" if "y" in columns else "null::double precision as y"
        x = "x" if "x" in columns else "null::double precision as x"
        found = self.ask(f"select run_id, _step, {x}, {y} from history order by run_id, _step")
        expected = [
            {"run_id": run_id, "_step": step, "x": row.get("x"), "y": row.get("y")}
            for run_id, run in sorted(there.items())
            for step, row in sorted(run.rows.items())
        ]
        assert [row for row in found if row["run_id"] in there] == expected
        edits = self.ask(EDITS)
        assert [row for row in edits if sees_deletions or row["run_id"] in there] == [
            {
                "run_id": run_id, "state": "running" if run.running else "finished",
                "tags": run.tags, "lr": run.lr, "best": run.best,
            }
            for run_id, run in sorted(there.items())
        ]  # fmt: skip
        receipts = self.ask("select status from _wb_receipts where table_name = 'history'")
        assert {row["status"] for row in receipts} <= {"complete", "growing", "deleted"}

    def ask(self, sql: str) -> list[dict[str, Any]]:
        return self.warehouse.query(sql, self.request.dataset_name).to_pylist()


@pytest.fixture(params=["duckdb", "postgres"])
def new_warehouse(request: pytest.FixtureRequest) -> Callable[[Path], Warehouse]:
    """Makes an empty one for each example; the datasets of all have names of their own."""
    if request.param == "duckdb":
        return lambda folder: connect(f"duckdb:///{folder / 'w.duckdb'}")
    url = request.getfixturevalue("postgres_server")
    return lambda folder: connect(url)


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("parquet", [True, False], ids=["files", "windows"])
def test_the_warehouse_ends_equal_to_the_server(
    parquet: bool, new_warehouse: Callable[[Path], Warehouse]
):
    with DevServer(parquet=parquet, parquet_rows_per_file=3) as server:
        members = {"server": server, "new_warehouse": staticmethod(new_warehouse)}
        machine = type("ProjectOnServer", (Project,), members)
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=EXAMPLES,
                stateful_step_count=STEPS,
                deadline=None,
                derandomize=EXAMPLES < 20,
                suppress_health_check=list(HealthCheck),
            ),
        )
