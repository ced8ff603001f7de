"""Values are computed, compared, merged per key, read back and journaled."""

from __future__ import annotations

import json
import math
import threading
from dataclasses import replace
from typing import Any

import pytest

from wb_ops import (
    Api,
    BackfillRequest,
    ExportRequest,
    InvalidRequest,
    OutcomeUnknown,
    PermissionDenied,
    RateLimited,
    ServerUnavailable,
    Warehouse,
    WarehouseRefused,
    execute_backfill,
    plan_backfill,
)
from wb_ops.devserver import DevServer, Fault, Matcher, Responder
from wb_ops.settings import Settings

EXPORT = ExportRequest("ann", "trials")
BEST = BackfillRequest(
    "ann", "trials", sql="select run_id, max(acc) as best from history group by run_id"
)
WRITE = Matcher(operation="UpsertBucket")


def backfill(request: BackfillRequest, api: Api, warehouse: Warehouse) -> Any:
    return execute_backfill(plan_backfill(request, api, warehouse), api, warehouse)


def journal(warehouse: Warehouse) -> list[dict[str, Any]]:
    sql = "select event, count(*) as n from _wb_backfills group by event order by event"
    return warehouse.query(sql, EXPORT.dataset_name).to_pylist()


def summary_text(api: Api, run_id: str) -> str:
    return str(api.source("ann/trials").fetch_node(run_id)["summaryMetrics"])


@pytest.mark.usefixtures("project")
class TestPlan:
    def test_it_says_old_new_and_what_will_be_done(self, api: Api, warehouse: Warehouse):
        plan = plan_backfill(BEST, api, warehouse)
        assert plan.counts == {"set": 60, "skipped (running)": 1}
        value = plan.to_set[3]
        assert (value.run_id, value.key, value.old, value.new) == ("r03", "best", None, "0.05")
        assert "r03  best: (none) -> 0.05" in str(plan)

    def test_it_writes_nothing(self, api: Api, warehouse: Warehouse, server: DevServer):
        plan_backfill(BEST, api, warehouse)
        assert set(server.requests.operations()) == {"Runs"}
        assert journal(warehouse) == []

    def test_filters_choose_the_runs(self, api: Api, warehouse: Warehouse):
        plan = plan_backfill(replace(BEST, filters={"name": "r07"}), api, warehouse)
        assert [value.run_id for value in plan.to_set] == ["r07"]

    def test_only_missing_leaves_what_is_there(self, api: Api, warehouse: Warehouse):
        request = replace(
            BEST, sql="select run_id, 1 as acc, 2 as new from runs", policy="only_missing"
        )
        counts = plan_backfill(request, api, warehouse).counts
        assert counts == {"set": 60, "skipped (has a value)": 60, "skipped (running)": 2}

    def test_a_null_writes_nothing(self, api: Api, warehouse: Warehouse):
        request = replace(BEST, sql="select run_id, null::double as best from runs")
        counts = plan_backfill(request, api, warehouse).counts
        assert counts == {"skipped (missing value)": 60, "skipped (running)": 1}


@pytest.mark.usefixtures("project")
class TestExecute:
    def test_our_keys_change_and_others_keep_their_text(
        self, api: Api, warehouse: Warehouse, server: DevServer
    ):
        report = backfill(BEST, api, warehouse)
        assert (len(report.written), report.runs, report.skipped) == (60, 60, 1)
        text = summary_text(api, "r03")
        assert json.loads(text)["best"] == 0.05
        assert '"h": {"_type":"histogram","bins":[1e400,NaN]}' in text
        assert '"_wandb": {"runtime":3}' in text
        assert journal(warehouse) == [{"event": "intent", "n": 60}, {"event": "written", "n": 60}]

    def test_it_takes_few_requests(self, api: Api, warehouse: Warehouse, server: DevServer):
        plan = plan_backfill(BEST, api, warehouse)
        server.requests.clear()
        report = execute_backfill(plan, api, warehouse)
        assert sorted(server.requests.operations()) == ["Runs"] * 4 + ["UpsertBucket"] * 3
        assert report.requests == 7
        assert report.requests <= 0.3 * report.runs

    def test_in_safe_mode_it_takes_two_requests_a_run_and_one_to_read_back(
        self, api: Api, warehouse: Warehouse, server: DevServer
    ):
        some = {"name": {"$regex": "^r0"}}
        plan = plan_backfill(replace(BEST, safe=True, filters=some), api, warehouse)
        server.requests.clear()
        report = execute_backfill(plan, api, warehouse)
        assert server.requests.operations() == ["Runs", "UpsertBucket"] * 10 + ["Runs"]
        assert (report.runs, report.requests) == (10, 21)

    def test_more_changes_than_allowed_are_refused_before_the_first(
        self, api: Api, warehouse: Warehouse, server: DevServer
    ):
        with pytest.raises(InvalidRequest, match="60 values, max_changes is 59"):
            backfill(replace(BEST, max_changes=59), api, warehouse)
        assert journal(warehouse) == []
        assert len(backfill(replace(BEST, max_changes=60), api, warehouse).written) == 60

    def test_a_second_time_there_is_nothing_to_do(
        self, api: Api, warehouse: Warehouse, server: DevServer
    ):
        backfill(BEST, api, warehouse)
        server.requests.clear()
        report = backfill(BEST, api, warehouse)
        assert (report.unchanged, report.written) == (60, [])
        assert server.requests.operations() == ["Runs"]

    def test_a_function_gets_the_run_with_its_history(self, api: Api, warehouse: Warehouse):
        def spread(run: Any) -> dict[str, Any]:
            acc = run.history_table(keys=["acc"])["acc"].to_pylist()
            return {"spread": max(acc) - min(acc), "nan": math.nan, "rows": len(acc)}

        request = BackfillRequest("ann", "trials", compute=spread, filters={"name": "r05"})
        assert len(backfill(request, api, warehouse).written) == 3
        summary = api.run("ann/trials/r05").summary
        assert (summary["rows"], summary["spread"]) == (3, pytest.approx(0.02))
        assert math.isnan(summary["nan"])
        assert plan_backfill(request, api, warehouse).counts == {"unchanged": 3}

    def test_a_running_run_is_written_only_when_asked(self, api: Api, warehouse: Warehouse):
        request = replace(BEST, include_running=True, filters={"name": "live"})
        assert len(backfill(request, api, warehouse).written) == 1

    def test_a_value_that_changed_since_the_plan_is_left_alone(
        self, api: Api, warehouse: Warehouse, server: DevServer
    ):
        plan = plan_backfill(BEST, api, warehouse)
        server.edit_run("ann", "trials", "r03", summary='{"best": 9, "acc": 1}')
        server.edit_run("ann", "trials", "r04", summary='{"other": 1}')
        server.delete_run("ann", "trials", "r05")
        report = execute_backfill(plan, api, warehouse)
        assert [value.run_id for value in report.conflicts] == ["r03"]
        assert [value.run_id for value in report.gone] == ["r05"]
        assert summary_text(api, "r03") == '{"best": 9, "acc": 1}'
        assert json.loads(summary_text(api, "r04")) == {"other": 1, "best": 0.06}


@pytest.mark.usefixtures("project")
class TestFaults:
    @pytest.fixture
    def api(self, server: DevServer) -> Api:
        settings = Settings(api_key=server.api_key, base_url=server.url, max_attempts=2)
        return Api(settings=replace(settings, max_wait_s=0.5))

    def test_a_lost_answer_is_settled_by_reading_back(
        self, api: Api, warehouse: Warehouse, server: DevServer
    ):
        server.faults.add(Fault(WRITE, Responder.lost_answer()))
        assert len(backfill(BEST, api, warehouse).written) == 60
        assert server.requests.operations().count("UpsertBucket") == 3

    @pytest.mark.parametrize("responder", [Responder.reset(), Responder.error(502)])
    def test_a_write_that_never_arrived_is_reported_and_made_up_for(
        self, api: Api, warehouse: Warehouse, server: DevServer, responder: Responder
    ):
        server.faults.add(Fault(WRITE, responder))
        with pytest.raises(OutcomeUnknown, match="values of ann/trials are not what was written"):
            backfill(BEST, api, warehouse)
        events = {line["event"]: line["n"] for line in journal(warehouse)}
        assert events["written"] + events["unverified"] == 60
        assert len(backfill(BEST, api, warehouse).written) == events["unverified"]

    @pytest.mark.parametrize(
        ("responder", "cls", "event"),
        [
            (Responder.rate_limited(30), RateLimited, "not_sent"),
            (Responder.error(409), InvalidRequest, "failed"),
        ],
    )
    def test_what_is_refused_for_now_is_told_apart_from_what_is_refused(
        self, api: Api, warehouse: Warehouse, server: DevServer, responder: Responder, cls: type,
        event: str,
    ):  # fmt: skip
        server.faults.add(Fault(WRITE, responder, times=None))
        with pytest.raises(cls) as caught:
            backfill(BEST, api, warehouse)
        assert len(getattr(caught.value.report, event)) == 60
        assert {line["event"]: line["n"] for line in journal(warehouse)} == {
            event: 60,
            "intent": 60,
        }

    def test_values_whose_turn_did_not_come_are_told_too(
        self, api: Api, warehouse: Warehouse, server: DevServer
    ):
        server.faults.add(Fault(Matcher(operation="UpsertBucket", nth=3), Responder.error(403)))
        with pytest.raises(PermissionDenied) as caught:
            backfill(replace(BEST, safe=True), api, warehouse)
        report = caught.value.report
        assert [len(some) for some in (report.written, report.failed, report.not_sent)] == [
            2,
            1,
            57,
        ]
        assert report.others == "of the others 2 written, 57 not sent"

    def test_a_server_that_is_down_is_our_error(
        self, api: Api, warehouse: Warehouse, server: DevServer
    ):
        server.faults.add(Fault(Matcher(operation="Runs"), Responder.error(502), times=None))
        with pytest.raises(ServerUnavailable):
            backfill(BEST, api, warehouse)


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize(
    ("sql", "cls", "words"),
    [
        ("select 1 as best", InvalidRequest, "run_id"),
        ("select run_id from runs", InvalidRequest, "a column for each key"),
        ("select run_id, 1 as a from runs, range(2)", InvalidRequest, "twice"),
        ("select null as run_id, 1 as a", InvalidRequest, "None"),
        ("select nothing from nowhere", WarehouseRefused, "nowhere"),
        ("drop table runs", WarehouseRefused, "one SELECT"),
    ],
)
def test_sql_that_cannot_be_used(
    api: Api, warehouse: Warehouse, sql: str, cls: type[Exception], words: str
):
    with pytest.raises(cls, match=words):
        plan_backfill(replace(BEST, sql=sql), api, warehouse)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"sql": "select 1", "compute": dict},
        {"sql": "x", "undo": "bf-1"},
        {"undo": "bf-1", "filters": {"name": "r00"}},
        {"undo": "bf-1", "target": "config"},
        {"resume": "bf-1", "policy": "only_missing"},
        {"resume": "bf-1", "include_incomplete": True},
        {"sql": "x", "policy": "hope"},
        {"sql": "x", "target": "state"},
        {"sql": "x", "filters": {"state": {"$is": "finished"}}},
    ],
)
def test_a_bad_request_is_refused(values: dict[str, Any]):
    with pytest.raises(InvalidRequest):
        BackfillRequest("ann", "trials", **values)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"entity": 5}, "entity=5: give a name"),
        ({"sql": 5}, "sql=5: give a text"),
        ({"sql": None, "compute": "best"}, "compute='best': give a function"),
        ({"sql": None, "file": 5}, "file=5: give a path"),
        ({"dataset": 5}, "dataset=5: give a name"),
        ({"filters": "x"}, "filters='x': give a dict"),
        ({"max_workers": "8"}, "max_workers='8': give a whole number"),
        ({"max_changes": True}, "max_changes=True: give a whole number"),
        ({"safe": "no"}, "safe='no': give True or False"),
    ],
)
def test_a_field_of_another_type_is_named(changes: dict[str, Any], words: str):
    with pytest.raises(InvalidRequest, match=words):
        replace(BEST, **changes)


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize("target", ["summary", "config"])
def test_a_key_that_is_no_text_is_refused(api: Api, warehouse: Warehouse, target: Any):
    request = BackfillRequest(
        "ann", "trials", compute=lambda run: {"best": 1, 5: 2}, target=target,
        filters={"name": "r00"},
    )  # fmt: skip
    with pytest.raises(InvalidRequest, match="Run r00: the key 5 is of type int: keys are text"):
        plan_backfill(request, api, warehouse)


@pytest.mark.usefixtures("project")
def test_a_run_that_is_deleted_while_a_function_computes_is_skipped(
    api: Api, warehouse: Warehouse, server: DevServer
):
    is_gone = threading.Event()

    def rows(run: Any) -> dict[str, Any]:
        if run.id == "r05":
            server.delete_run("ann", "trials", "r05")
            is_gone.set()
        # The first history that is read asks for the sources of the other one too.
        assert is_gone.wait(10)
        return {"rows": run.history_table(keys=["acc"]).num_rows}

    request = BackfillRequest(
        "ann", "trials", compute=rows, filters={"name": {"$in": ["r04", "r05"]}}
    )
    counts = plan_backfill(request, api, warehouse).counts
    assert counts == {"set": 1, "skipped (deleted since it was listed)": 1}
