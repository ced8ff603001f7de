"""Whatever happens to the runs between exports: the warehouse ends equal to the server.

An hour goes by before each export, and when all scopes have seen an edit, it is made as old as the
rest: an incremental export lists only what it has to.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule, run_state_machine_as_test

from wb_ops import (
    Api,
    ExportPlan,
    ExportRequest,
    Warehouse,
    commit_plan,
    connect,
    execute_export,
    execute_shard,
    plan_export,
)
from wb_ops.devserver import DevServer, Fault, Matcher, Responder

sys.path.insert(0, str(Path(__file__).parent))
from changing_project import IDS, LONG_AGO, ChangingProject
from known_runs import SCOPES, Known, Scope, named, window

sys.path.pop(0)

EXAMPLES = int(os.environ.get("WB_OPS_EXAMPLES", "3"))
STEPS = int(os.environ.get("WB_OPS_STEPS", "10"))
TABLES = ("runs", "system_metrics", "_wb_receipts")
SHOWN = ("run_id", "state", "history_rows", "display_name", "notes", "tags")
# How rows are read, from files or by windows of steps, does not concern where they are written to.
HISTORIES = {
    "duckdb": ("files", "windows"),
    "postgres": ("files", "windows"),
    "parquet": ("files",),
    "delta": ("windows",),
}
BETWEEN_EXPORTS = timedelta(hours=1)
NO_FILTER_ON_EDITS = Fault(Matcher(operation="FilterProbe"), Responder.error(400), times=None)


class ExportedProject(ChangingProject):
    """Exports in between, and compares."""

    new_warehouse: Callable[[Path], Warehouse]

    def __init__(self) -> None:
        super().__init__()
        self.folder = TemporaryDirectory(prefix="wb_ops-convergence-")
        self.api = Api({"base_url": self.server.url}, api_key=self.server.api_key)
        self.warehouse = self.new_warehouse(Path(self.folder.name))
        self.request = ExportRequest(*self.path, max_cells=200)

    @initialize(
        scopes=st.lists(st.sampled_from(sorted(SCOPES)), min_size=1, max_size=2, unique=True)
    )
    def begin(self, scopes: list[str]) -> None:
        """Two runs, and one that is in every scope and reports before each export."""
        self.scopes = [SCOPES[name] for name in scopes]
        self.make("anchor", 1, "finished")
        self.edit("anchor", {"tags": ["best"]})
        self.start("a", rows=3, running=True, events=1, reports=True, late=False)
        self.start("b", rows=2, running=False, events=2, reports=True, late=False)
        for scope in self.scopes:
            self.export(scope, "incremental")

    def teardown(self) -> None:
        if self.runs:
            self.export(SCOPES["whole"], "reconcile")
        self.api.close()
        self.folder.cleanup()

    @rule(which=st.integers(0, 1), shards=st.integers(0, 1))
    def export_what_moved(self, which: int, shards: int) -> None:
        scope = self.scopes[which % len(self.scopes)]
        self.export(scope, "incremental", shards)
        self.look_again(scope)

    @rule(
        which=st.integers(0, 1),
        mode=st.sampled_from(["incremental", "reconcile", "full"]),
        shards=st.integers(0, 2), filters_on_edits=st.booleans(),
    )  # fmt: skip
    def export_in_any_mode(
        self, which: int, mode: str, shards: int, filters_on_edits: bool
    ) -> None:
        scope = self.scopes[which % len(self.scopes)]
        self.export(scope, mode, shards, filters_on_edits)

    @rule(since=st.sampled_from(IDS), until=st.sampled_from([None, *IDS]), shards=st.integers(0, 1))
    def export_window(self, since: str, until: str | None, shards: int) -> None:
        """Of the runs that were created from one on, and before another one."""
        bounds = [self.runs[one].created_at if one in self.runs else None for one in (since, until)]
        if bounds[0] is not None and (bounds[1] is None or bounds[0] < bounds[1]):
            self.export(window(bounds[0], bounds[1]), "incremental", shards)

    @rule(run_ids=st.sets(st.sampled_from(IDS), min_size=1), shards=st.integers(0, 1))
    def export_named(self, run_ids: set[str], shards: int) -> None:
        self.export(named(run_ids), "incremental", shards)

    def export(
        self, scope: Scope, mode: Any, shards: int = 0, filters_on_edits: bool = True
    ) -> None:
        """Export, and compare what the export must have seen."""
        self.now += BETWEEN_EXPORTS
        self.report(self.runs["anchor"])
        runs = list(self.runs.values())
        if not filters_on_edits:
            self.server.faults.add(NO_FILTER_ON_EDITS)
        plan = self.execute(replace(self.request, mode=mode, **scope.asked), shards)
        self.server.faults.clear()
        promised = scope.promised(runs, plan.mode, is_asked_for_edits=filters_on_edits)
        for run in promised:
            run.is_held, run.is_held_running = True, run.state == "running"
            run.has_all_keys = run.has_all_keys or scope.name != "keys"
        self.compare(scope, promised, scope.concluded(runs, plan.mode))
        if not scope.is_partial:
            self.exported.add(scope.name)
            if plan.mode != "incremental" or filters_on_edits:
                self.settle(scope)

    def execute(self, request: ExportRequest, shards: int) -> ExportPlan:
        if not shards:
            plan = plan_export(request, self.api, self.warehouse)
            execute_export(plan, self.api, self.warehouse)
            return plan
        plan = plan_export(request, self.api, self.warehouse, self.folder.name)
        assert plan.uri is not None
        for shard in plan.shards(shards):
            execute_shard(plan.uri, shard, self.api)
        commit_plan(plan.uri, self.api, self.warehouse)
        return plan

    def settle(self, scope: Scope) -> None:
        """Let edits that were seen grow old."""
        for run in self.runs.values():
            run.unseen.discard(scope.name)
            if run.is_young and not run.unseen and not run.is_gone:
                run.is_young = False
                self.server.edit_run(*self.path, run.run_id, updated_at=LONG_AGO)

    def look_again(self, scope: Scope) -> None:
        """Nothing has changed: only what reported last, still runs or was edited is listed."""
        there = [run for run in self.runs.values() if not run.is_gone and scope.holds(run)]
        moved = [run for run in there if run.is_young or run.state == "running"]
        plan = plan_export(replace(self.request, **scope.asked), self.api, self.warehouse)
        assert plan.mode == "incremental"
        assert plan.listed <= 1 + len([run for run in moved if run.run_id != "anchor"])
        assert [run.run_id for run in plan.runs if not self.runs[run.run_id].unseen] == []

    def compare(self, scope: Scope, promised: list[Known], concluded: list[Known]) -> None:
        """The runs that the export promised, and that those it concluded to be gone are."""
        dataset = self.request.dataset_name
        tables = self.warehouse.read_tables(dataset, TABLES)
        tables["history"] = self.warehouse.query("select * from history", dataset)
        of = sorted(promised, key=lambda run: run.run_id)
        ids = {run.run_id for run in of}
        looked_at = ids | {run.run_id for run in concluded}
        live = {row["run_id"]: row for row in rows_of(tables["runs"]) if not row["deleted_at"]}
        found = [shown(row) for run_id, row in sorted(live.items()) if run_id in looked_at]
        assert found == [run.row() for run in of]
        held = {run.run_id for run in self.runs.values() if run.is_held and not run.is_gone}
        assert held <= live.keys(), "marked as deleted, and still there"
        history = [self.cells(row) for row in rows_of(tables["history"]) if row["run_id"] in ids]
        assert sorted(history, key=lambda row: (row["run_id"], row["_step"])) == [
            self.cells(row) for run in of for row in run.history()
        ]
        if scope.name == "system":
            events = Counter(tables["system_metrics"]["run_id"].to_pylist())
            assert {run_id: events[run_id] for run_id in ids} == {
                run.run_id: run.events for run in of
            }
        statuses = set(tables["_wb_receipts"]["status"].to_pylist())
        assert statuses <= {"complete", "growing", "deleted"}

    def cells(self, row: dict[str, Any]) -> dict[str, Any]:
        """A row of a history, without the metric that no export had to read of this run."""
        keys = ("x", "y") if self.runs[row["run_id"]].has_all_keys else ("x",)
        return {name: row[name] for name in ("run_id", "_step")} | {
            key: row.get(key) for key in keys
        }


def rows_of(table: pa.Table) -> list[dict[str, Any]]:
    return [dict(row) for row in table.to_pylist()]


def shown(row: dict[str, Any]) -> dict[str, Any]:
    """A row of `runs` as `Known.row` gives it."""
    config, summary = json.loads(row["config"]), json.loads(row["summary"])
    own = {name: row[name] for name in SHOWN}
    return own | {"lr": config.get("lr"), "best": summary.get("best")}


@pytest.fixture
def new_warehouse(request: pytest.FixtureRequest) -> Callable[[Path], Warehouse]:
    """Makes an empty one for each example; the datasets of all have names of their own."""
    if request.param == "postgres":
        url = request.getfixturevalue("postgres_server")
        return lambda folder: connect(url)
    return lambda folder: connect(f"{request.param}:///{folder / 'warehouse'}")


@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("new_warehouse", "parquet"),
    [
        pytest.param(destination, history == "files", id=f"{destination}-{history}")
        for destination, histories in HISTORIES.items()
        for history in histories
    ],
    indirect=["new_warehouse"],
)
def test_the_warehouse_ends_equal_to_the_server(
    parquet: bool, new_warehouse: Callable[[Path], Warehouse]
):
    with DevServer(parquet=parquet, parquet_rows_per_file=3) as server:
        members = {"server": server, "new_warehouse": staticmethod(new_warehouse)}
        machine = type("ProjectOnServer", (ExportedProject,), members)
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
