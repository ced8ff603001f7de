"""Two exports into one dataset at the same time: both finish, and nothing is lost or doubled."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from wb_ops import Api, ExportRequest, Warehouse, execute_export, plan_export
from wb_ops.devserver import DevServer

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
