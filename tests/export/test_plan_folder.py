"""A plan is a folder: it goes on where a killed planner stopped, and is deleted when it is old."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from wb_ops import (
    Api,
    ExportRequest,
    InvalidRequest,
    NotFound,
    Shard,
    Warehouse,
    commit_plan,
    execute_shard,
    load_plan,
    plan_export,
)
from wb_ops.devserver import DevServer
from wb_ops.export import delete_old_plans
from wb_ops.export.folder import open_folder

REQUEST = ExportRequest("ann", "trials", tables=("runs", "history", "system_metrics"))


def test_a_killed_listing_goes_on(
    project: DevServer, impatient: Api, warehouse: Warehouse, staging: str,
    monkeypatch: pytest.MonkeyPatch,
):  # fmt: skip
    monkeypatch.setattr("wb_ops.export.plan.MAX_PAGE_SIZE", 2)
    started = datetime.now(UTC)
    broken = plan_export(REQUEST, impatient, warehouse)
    project.edit_run("ann", "trials", "r5", raw_config="{broken")
    with monkeypatch.context() as patch:
        from wb_ops.export import plan as planning

        def decide_until_r4(request: Any, node: Any, state: Any, mode: Any) -> Any:
            if node["name"] == "r4":
                raise KeyboardInterrupt
            return original(request, node, state, mode)

        original = planning.decide
        patch.setattr(planning, "decide", decide_until_r4)
        with pytest.raises(KeyboardInterrupt):
            plan_export(REQUEST, impatient, warehouse, staging)
    project.requests.clear()
    plan = plan_export(REQUEST, impatient, warehouse, staging)
    filters = [one.variables["filters"] for one in project.requests if one.operation == "Runs"]
    assert "2026-01-04" in filters[0], "the listing goes on with the last run that is on disk"
    assert plan.listed == broken.listed == 6
    assert sorted(run.run_id for run in plan.runs) == [f"r{index}" for index in range(6)]
    assert started <= plan.planned_at
    assert plan.after.watermark is not None
    assert plan.after.watermark <= plan.planned_at
    again = plan_export(REQUEST, impatient, warehouse, staging)
    assert again.plan_id != plan.plan_id, "a finished plan is not continued"


def test_a_plan_says_what_it_costs_and_reads_back_the_same(
    project: DevServer, api: Api, warehouse: Warehouse, staging: str
):
    plan = plan_export(REQUEST, api, warehouse)
    assert "6 new" in str(plan)
    assert "21 rows" in str(plan)
    assert "min at the current limit" in str(plan)
    stored = load_plan(plan.save(staging))
    assert str(stored) == str(plan)
    assert stored.request == plan.request
    assert (stored.before, stored.after, stored.load_id) == (plan.before, plan.after, plan.load_id)
    assert stored.runs == plan.runs


def test_what_is_no_plan_is_named(api: Api, warehouse: Warehouse, staging: str):
    with pytest.raises(NotFound, match="No finished plan"):
        load_plan(f"{staging}/nothing")
    with pytest.raises(InvalidRequest, match="index=3 of count=3"):
        Shard(3, 3)
    with pytest.raises(InvalidRequest, match="unknown"):
        plan_export(REQUEST, api, warehouse, "unknown://bucket/plans")


def test_a_plan_of_another_server_is_refused(
    project: DevServer, api: Api, warehouse: Warehouse, staging: str
):
    plan_uri = plan_export(REQUEST, api, warehouse).save(staging)
    elsewhere = Api({"base_url": "http://127.0.0.1:9"}, api_key="w" * 40)
    with pytest.raises(InvalidRequest, match="this Api of"):
        execute_shard(plan_uri, Shard(0, 1), elsewhere)
    with pytest.raises(InvalidRequest, match="this Api of"):
        commit_plan(plan_uri, elsewhere, warehouse)


def test_old_plans_are_deleted_and_nothing_else(
    project: DevServer, api: Api, warehouse: Warehouse, staging: str
):
    root = open_folder(staging)
    plan = plan_export(REQUEST, api, warehouse, staging)
    root.write("notes/plan.json", b"{}")
    root.write("20200101T000000-0badcafe/other.txt", b"no plan")
    kept = root.list_names()
    for name in root.list_names():
        if name.startswith(plan.plan_id):
            data = root.read(name)
            assert data is not None
            root.write(name.replace(plan.plan_id, "20200102T000000-0badcafe"), data)
    assert len(root.list_names()) > len(kept)
    week = timedelta(days=7)
    assert delete_old_plans(staging, older_than=week) == ["20200102T000000-0badcafe"]
    assert root.list_names() == kept
    assert delete_old_plans(staging, older_than=week) == []
    assert load_plan(str(plan.uri)).runs == plan.runs
    with pytest.raises(InvalidRequest, match="a plan is continued for"):
        delete_old_plans(staging, older_than=timedelta(hours=1))
    assert delete_old_plans(f"{staging}/nowhere", older_than=week) == []
