"""What a plan says of its cost: requests, minutes, and what is left of W&B's limit."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from wb_ops import Api, ExportPlan, ExportRequest, Warehouse, load_plan, plan_export
from wb_ops.devserver import DevServer, Fault, Matcher, Responder
from wb_ops.export.planned import Totals
from wb_ops.export.state import Marks

REQUEST = ExportRequest("ann", "trials")
LISTING = Matcher(operation="Runs")


def plan_of(totals: Totals, seconds_per_request: float, wait_s: float) -> ExportPlan:
    return ExportPlan(
        request=REQUEST, plan_id="p", base_url="http://127.0.0.1", mode="full", deleted=(),
        listed=totals.runs, hidden=0, broken=(), before=Marks(), after=Marks(),
        planned_at=datetime.now(UTC), totals=totals, seconds_per_request=seconds_per_request,
        wait_s=wait_s, in_memory=(),
    )  # fmt: skip


def test_the_minutes_are_those_of_the_requests_after_the_wait():
    plan = plan_of(Totals(runs=100, histories=100, systems=20), 0.8, 30)
    # 100 files or windows, their sources by 20, 20 system metrics, the counters after the rows.
    assert plan.requests == 100 + 5 + 20 + 1
    assert plan.minutes == pytest.approx((30 + 126 * 0.8 / 8) / 60)
    assert plan_of(Totals(runs=3), 0.8, 0).minutes == 0


def test_only_the_time_of_requests_counts(server: DevServer, api: Api, warehouse: Warehouse):
    server.seed_run("ann", "trials", "r0", history=[{"_step": 0, "loss": 1.0}])
    server.faults.add(Fault(LISTING, Responder.rate_limited(0.5)))
    plan = plan_export(REQUEST, api, warehouse)
    traffic = api.transport.traffic
    assert traffic.waited_s >= 0.5
    assert plan.seconds_per_request == traffic.busy_s / traffic.requests > 0


def test_what_is_left_of_the_limit_is_told(
    server: DevServer, api: Api, warehouse: Warehouse, tmp_path: Path
):
    server.seed_run("ann", "trials", "r0")
    headers = {"RateLimit-Remaining": "3", "RateLimit-Limit": "1000", "RateLimit-Reset": "600"}
    server.faults.add(Fault(LISTING, Responder(headers=headers), times=None))
    plan = plan_export(REQUEST, api, warehouse, str(tmp_path / "staging"))
    assert plan.limit_left == 0.003
    assert "min at the current limit (0.3 % of it left for " in str(plan)
    stored = load_plan(str(plan.uri))
    assert (stored.limit_left, stored.limit_reset_s) == (plan.limit_left, plan.limit_reset_s)


def test_a_server_that_says_nothing_of_a_limit(server: DevServer, api: Api, warehouse: Warehouse):
    server.seed_run("ann", "trials", "r0")
    plan = plan_export(REQUEST, api, warehouse)
    assert (plan.limit_left, plan.limit_reset_s) == (None, None)
    assert str(plan).endswith("min at the current limit")
