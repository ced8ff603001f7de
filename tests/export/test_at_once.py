"""Two exports into one dataset at the same time: both finish, and nothing is lost or doubled."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from wb_ops import Api, ExportRequest, Warehouse, execute_export, plan_export
from wb_ops.devserver import DevServer
from wb_ops.export.state import read_state

REQUEST = ExportRequest("ann", "trials", max_cells=100)


def rows(count: int, start: int = 0) -> list[dict[str, Any]]:
    return [{"_step": step, "loss": float(step)} for step in range(start, start + count)]


def test_both_finish(server: DevServer, api: Api, warehouse: Warehouse, ask: Any):
    server.seed_runs(
        {
            "entity": "ann", "project": "trials", "run_id": f"r{index}", "history": rows(10),
            "state": ("finished", "running")[index % 2],
        }
        for index in range(12)
    )  # fmt: skip
    plans = [plan_export(REQUEST, api, warehouse) for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        reports = list(pool.map(lambda plan: execute_export(plan, api, warehouse), plans))
    assert all(report.unsound == [] for report in reports)
    counts = "select count(*) as n, count(distinct (run_id, _step)) as d from history"
    assert ask(counts) == [{"n": 120, "d": 120}]
    assert plan_export(replace(REQUEST, mode="reconcile"), api, warehouse).runs == ()


def test_the_slower_one_takes_nothing_back(
    server: DevServer, api: Api, warehouse: Warehouse, ask: Any
):
    server.seed_run("ann", "trials", "live", state="running", history=rows(10))
    slow = plan_export(REQUEST, api, warehouse)
    server.append_history("ann", "trials", "live", rows(10, start=10))
    server.finish_run("ann", "trials", "live")
    execute_export(plan_export(REQUEST, api, warehouse), api, warehouse)
    server.edit_run("ann", "trials", "live", tags=["late"])
    report = execute_export(slow, api, warehouse)
    assert (report.runs, report.changed) == (0, 1)
    assert ask("select count(*) as n from history") == [{"n": 20}]
    assert ask("select status from _wb_receipts where table_name = 'history'") == [
        {"status": "complete"}
    ]
    plan = plan_export(REQUEST, api, warehouse)
    assert [(run.run_id, run.reason) for run in plan.runs] == [("live", "edited")]
    execute_export(plan, api, warehouse)
    assert ask("select tags from runs") == [{"tags": ["late"]}]
    assert left(warehouse) == set()


def test_what_the_other_one_wrote_is_settled(server: DevServer, api: Api, warehouse: Warehouse):
    """Else each export would ask for these runs again."""
    events = [{"_timestamp": 1.0, "system.cpu": 1.0}]
    server.seed_run("ann", "trials", "done", history=rows(10), events=events)
    request = replace(REQUEST, tables=("runs", "history", "system_metrics"))
    execute_export(plan_export(request, api, warehouse), api, warehouse)
    server.edit_run("ann", "trials", "done", tags=["late"])
    plans = [plan_export(replace(request, mode="full"), api, warehouse) for _ in range(2)]
    reports = [execute_export(plan, api, warehouse) for plan in plans]
    assert [report.changed for report in reports] == [0, 1]
    assert left(warehouse) == set()


def left(warehouse: Warehouse) -> set[str]:
    """Runs that every export asks for again."""
    tables = ("runs", "history", "system_metrics")
    return read_state(replace(REQUEST, tables=tables), warehouse).again(tables)
