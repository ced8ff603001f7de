"""Cases in which an export could lose rows, call them complete, or never get on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from wb_ops import (
    Api,
    ExportIncomplete,
    ExportRequest,
    RateLimited,
    ServerUnavailable,
    Shard,
    Warehouse,
    WarehouseRefused,
    commit_plan,
    connect,
    execute_export,
    execute_shard,
    plan_export,
)
from wb_ops.client.pacing import RequestBudget
from wb_ops.devserver import DevServer, Fault, Matcher, Responder
from wb_ops.export.decide import PlannedRun
from wb_ops.export.staging import Stager
from wb_ops.settings import Settings

Ask = Callable[[str], list[dict[str, Any]]]
OLD = "2026-01-01T00:00:00"


def rows(count: int, loss: float = 1.0) -> list[dict[str, Any]]:
    return [{"_step": step, "loss": loss} for step in range(count)]


def seed(server: DevServer, *run_ids: str, **fields: Any) -> None:
    for run_id in run_ids:
        server.seed_run("ann", "trials", run_id, **{"history": rows(10), **fields})


def eager(server: DevServer) -> Api:
    """Tries once and waits for nothing."""
    settings = Settings(api_key=server.api_key, base_url=server.url, max_attempts=1, max_wait_s=0.0)
    return Api(settings=settings)


@pytest.mark.parametrize(
    "limited",
    [Matcher(origin="storage", nth=4), Matcher(operation="RunParquetHistory", nth=3)],
    ids=["storage", "api"],
)
def test_what_was_read_before_a_limit_is_kept(
    server: DevServer, warehouse: Warehouse, ask: Ask, limited: Matcher
):
    """Each attempt gets on, however often the limit comes back."""
    seed(server, *(f"r{index:02}" for index in range(12)))
    kept = [0]
    for _ in range(12):
        api = eager(server)
        api.transport.budget = RequestBudget()
        server.faults.clear()
        server.faults.add(Fault(limited, Responder.rate_limited(30), times=None))
        request = ExportRequest("ann", "trials", max_workers=1)
        try:
            execute_export(plan_export(request, api, warehouse), api, warehouse)
            break
        except RateLimited:
            kept.append(ask("select count(*) as n from history")[0]["n"])
            assert kept[-1] > kept[-2]
    assert ask("select count(*) as n from history") == [{"n": 120}]


@pytest.mark.parametrize(
    "trouble", [Responder.error(500), Responder.reset(), Responder(status=200, body="{cut")]
)
def test_where_twenty_histories_cannot_be_asked_for_together_each_is_asked_for(
    server: DevServer, warehouse: Warehouse, ask: Ask, trouble: Responder
):
    """One run among them may be what the server chokes on."""
    seed(server, *(f"r{index}" for index in range(6)))
    api = eager(server)
    server.faults.add(Fault(Matcher(operation="RunParquetHistory", nth=1), trouble))
    report = execute_export(
        plan_export(ExportRequest("ann", "trials"), api, warehouse), api, warehouse
    )
    assert report.statuses == {"complete": 6}
    assert ask("select count(*) as n from history") == [{"n": 60}]


def test_a_run_id_longer_than_a_files_name_may_be(server: DevServer, export: Any, ask: Ask):
    seed(server, "r" * 128)
    assert export()[1].statuses == {"complete": 1}
    assert ask("select count(*) as n from history") == [{"n": 10}]


def test_a_disk_that_takes_no_staged_rows_is_refused_with_the_remedy(
    server: DevServer, api: Api, tmp_path: Path
):
    seed(server, "r1")
    source = api.source("ann/trials")
    stager = Stager(source, api.reader, tmp_path / "gone", "load", redacts=False)
    planned = PlannedRun(source.fetch_node("r1"), "new", reads_history=True)
    with pytest.raises(WarehouseRefused, match="TMPDIR"):
        stager.stage(planned, None)


def test_a_run_that_is_deleted_and_comes_back(server: DevServer, export: Any, ask: Ask):
    seed(server, "r1", "r2")
    export()
    server.delete_run("ann", "trials", "r1")
    export(mode="reconcile")
    seed(server, "r1", history=rows(4))
    plan, _ = export()
    assert {run.run_id: run.reason for run in plan.runs} == {"r1": "deleted before"}
    assert ask("select count(*) as n from history where run_id = 'r1'") == [{"n": 4}]
    assert ask("select count(*) as n from runs where deleted_at is not null") == [{"n": 0}]


def test_a_run_made_anew_under_its_id_with_as_many_rows(server: DevServer, export: Any, ask: Ask):
    seed(server, "r1")
    export()
    server.delete_run("ann", "trials", "r1")
    seed(server, "r1", history=rows(10, loss=2.0))
    plan, _ = export()
    assert [run.reason for run in plan.runs] == ["made anew"]
    assert ask("select distinct loss from history") == [{"loss": 2.0}]


def test_a_step_that_was_logged_again_is_two_rows_in_two_files_too(warehouse: Warehouse):
    """A run that was resumed logs its last step once more; it begins the next file."""
    again = [{"_step": 9, "loss": 2.0}, *({"_step": step, "loss": 2.0} for step in (10, 11))]
    with DevServer(parquet_rows_per_file=10) as server:
        seed(server, "r1", history=[*rows(10), *again])
        server.export_run("ann", "trials", "r1")
        with Api({"base_url": server.url}, api_key=server.api_key) as api:
            plan = plan_export(ExportRequest("ann", "trials"), api, warehouse)
            receipt = execute_export(plan, api, warehouse).receipts[0]
    assert (receipt.source, receipt.status) == ("parquet", "complete")
    assert (receipt.rows_read, receipt.distinct_steps, receipt.server_rows) == (13, 12, 13)


def test_a_row_read_twice_does_not_stand_for_one_that_is_missing(
    server: DevServer, export: Any, ask: Ask
):
    """The live rows repeat a step that a file holds too, and one row is not there at all."""
    seed(server, "r1", history=[*rows(9), {"_step": 12, "loss": 1.0}], parquet=9)

    def lines(document: Any) -> None:
        server.append_history("ann", "trials", "r1", [{"_step": 5, "loss": 1.0}] * 3)

    server.faults.add(
        Fault(Matcher(operation="HistoryPage"), Responder(status=None), action=lambda: lines(None))
    )
    _, report = export()
    receipt = report.receipts[0]
    assert receipt.server_rows == 13
    assert (receipt.status, receipt.distinct_steps) == ("unexplained", 10)


class TestUnreadable:
    def test_a_config_that_is_no_json_fails_an_export_that_must_be_whole(
        self, server: DevServer, export: Any, ask: Ask
    ):
        seed(server, "ok", created_at=OLD, heartbeat_at=OLD)
        seed(server, "bad", raw_config="{broken", created_at=OLD, heartbeat_at=OLD)
        seed(server, "recent")
        with pytest.raises(ExportIncomplete, match="bad failed"):
            export(on_incomplete="fail")
        server.edit_run("ann", "trials", "bad", raw_config="{}", heartbeat_at=OLD)
        export()
        assert ask("select count(*) as n from runs") == [{"n": 3}]

    def test_a_history_row_that_is_no_json_is_that_runs_trouble(
        self, server: DevServer, export: Any, ask: Ask
    ):
        seed(server, "ok")
        seed(server, "bad", parquet="off")
        cut = {"data": {"project": {"run": {"history": ['{"_step": 0, "lo']}}}}
        page = Matcher(operation="HistoryPage")
        server.faults.add(Fault(page, Responder(status=200, body=json.dumps(cut)), times=None))
        _, report = export()
        assert report.statuses == {"complete": 1, "failed": 1}
        assert ask("select count(*) as n from history") == [{"n": 10}]


def test_a_failed_read_leaves_what_was_known(server: DevServer, export: Any, ask: Ask):
    seed(server, "ok", "r1")
    export()
    server.append_history("ann", "trials", "r1", [{"_step": 99, "loss": 1.0}])
    server.faults.add(Fault(Matcher(origin="storage"), Responder.truncated(50), times=None))
    with pytest.raises(ExportIncomplete):
        export()
    held = ask("select status, rows_read, distinct_steps from _wb_receipts where run_id = 'r1' "
               "and table_name = 'history'")  # fmt: skip
    assert held == [{"status": "failed", "rows_read": 10, "distinct_steps": 10}]
    assert ask("select count(*) as n from history where run_id = 'r1'") == [{"n": 10}]


def test_a_clock_in_the_future_hides_no_later_run(server: DevServer, export: Any):
    seed(server, "future", heartbeat_at="2031-01-01T00:00:00")
    export()
    seed(server, "new")
    plan, _ = export()
    assert "new" in {run.run_id for run in plan.runs}


def test_runs_that_are_counted_but_not_listed_are_told(server: DevServer, export: Any, ask: Ask):
    seed(server, "r1", "r2")
    page = {"edges": [{"node": None, "cursor": "a"}], "pageInfo": {"hasNextPage": False}}
    answer = {"data": {"project": {"runCount": 2, "runs": page}}}
    server.faults.add(
        Fault(Matcher(operation="Runs"), Responder(status=200, body=json.dumps(answer)))
    )
    plan, _ = export()
    assert (plan.listed, plan.hidden) == (0, 2)
    assert "2 counted but not listed" in str(plan)
    assert ask("select note from _wb_loads") == [{"note": "2 runs counted but not listed"}]


def test_two_projects_do_not_share_a_dataset_by_the_case_of_its_name(
    server: DevServer, api: Api, warehouse: Warehouse
):
    seed(server, "r1")
    server.seed_run("ann", "other", "r1")
    request = ExportRequest("ann", "trials", dataset="Shared")
    execute_export(plan_export(request, api, warehouse), api, warehouse)
    with pytest.raises(WarehouseRefused, match="holds ann/trials"):
        plan_export(ExportRequest("ann", "other", dataset="shared"), api, warehouse)
    assert plan_export(ExportRequest("ann", "trials", dataset="SHARED"), api, warehouse).runs == ()


def test_a_server_that_fails_every_history_stops_soon(server: DevServer, warehouse: Warehouse):
    seed(server, *(f"r{index:02}" for index in range(40)))
    api = eager(server)
    server.faults.add(Fault(Matcher(origin="storage"), Responder.error(502), times=None))
    with pytest.raises(ServerUnavailable):
        execute_export(plan_export(ExportRequest("ann", "trials"), api, warehouse), api, warehouse)
    downloads = [one for one in server.requests if one.origin == "storage"]
    assert len(downloads) < 30


def test_a_scope_looks_only_at_its_own_runs(server: DevServer, export: Any):
    seed(server, "live", state="running")
    seed(server, "done")
    export()
    server.append_history("ann", "trials", "live", [{"_step": 50, "loss": 1.0}])
    done = {"state": "finished"}
    export(filters=done)
    assert [run.run_id for run in export(filters=done)[0].runs] == []


def test_exports_of_one_process_take_turns(server: DevServer, tmp_path: Any, ask: Ask):
    from concurrent.futures import ThreadPoolExecutor

    seed(server, *(f"r{index:02}" for index in range(20)))
    warehouse = connect(f"duckdb:///{tmp_path}/warehouse.duckdb", lock_timeout_s=30)

    def one(_: int) -> None:
        with Api({"base_url": server.url}, api_key=server.api_key) as api:
            request = ExportRequest("ann", "trials", mode="full")
            execute_export(plan_export(request, api, warehouse), api, warehouse)

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(one, range(3)))
    assert ask("select count(*) as n, count(distinct (run_id, _step)) as d from history") == [
        {"n": 200, "d": 200}
    ]


class TestARunThatTheServerCannotGiveForAMoment:
    """It was listed, its rows were read, and then its counters cannot be: it is not deleted."""

    @pytest.fixture
    def unable(self, server: DevServer) -> Fault:
        seed(server, "r1", "r2", "r3")
        return Fault(Matcher(operation="Runs"), Responder.error(500), times=None)

    def test_is_kept_as_it_was_listed(
        self, server: DevServer, warehouse: Warehouse, ask: Ask, unable: Fault
    ):
        api = eager(server)
        plan = plan_export(ExportRequest("ann", "trials"), api, warehouse)
        server.faults.add(unable)
        report = execute_export(plan, api, warehouse)
        assert report.statuses == {"complete": 3}
        assert ask("select count(*) as n from history") == [{"n": 30}]
        assert ask("select count(*) as n from runs where deleted_at is null") == [{"n": 3}]

    def test_is_kept_as_its_shard_read_it(
        self, server: DevServer, warehouse: Warehouse, ask: Ask, unable: Fault, tmp_path: Any
    ):
        api = eager(server)
        plan = plan_export(ExportRequest("ann", "trials"), api, warehouse, str(tmp_path / "plans"))
        execute_shard(str(plan.uri), Shard(0, 1), api)
        server.faults.add(unable)
        assert commit_plan(str(plan.uri), api, warehouse).statuses == {"complete": 3}
        assert ask("select count(*) as n from history") == [{"n": 30}]
        assert ask("select count(*) as n from runs where deleted_at is null") == [{"n": 3}]
