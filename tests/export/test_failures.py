"""One run's trouble stays with that run; what concerns all stops all; nothing is half written."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import date, datetime, timedelta, timezone
from typing import Any

import pytest

from wb_ops import (
    Api,
    AuthenticationFailed,
    ExportIncomplete,
    ExportRequest,
    InvalidRequest,
    NotFound,
    RateLimited,
    Warehouse,
    WarehouseRefused,
    connect,
    execute_export,
    plan_export,
)
from wb_ops.devserver import DevServer, Fault, Matcher, Responder
from wb_ops.export import Progress
from wb_ops.settings import Settings

Ask = Callable[[str], list[dict[str, Any]]]
REQUEST = ExportRequest("ann", "trials")
# A page of 1,000 runs is halved so often until it holds one: 1000, 500, 250, ... 3, 1.
HALVINGS = 10
WEST = timezone(-timedelta(hours=1))
HISTORY = [{"_step": step, "loss": float(step)} for step in range(10)]


@pytest.fixture
def project(server: DevServer) -> DevServer:
    server.seed_runs(
        {"entity": "ann", "project": "trials", "run_id": f"r{index}", "history": HISTORY}
        for index in range(4)
    )
    return server


@pytest.fixture
def api(server: DevServer) -> Api:
    """Tries once, so that a fault is an error at once."""
    settings = Settings(api_key=server.api_key, base_url=server.url, max_attempts=1)
    return Api(settings=replace(settings, max_wait_s=1.0))


@pytest.mark.usefixtures("project")
class TestOneRun:
    def test_that_the_server_cannot_list_is_named_and_not_taken_for_deleted(
        self, server: DevServer, export: Any, ask: Ask
    ):
        export()
        refused = Fault(Matcher(operation="Runs"), Responder.error(500), times=HALVINGS)
        server.faults.add(refused)
        plan, report = export(mode="reconcile")
        assert list(plan.broken) == report.broken
        assert len(report.broken) == 1
        assert report.broken[0] in str(report)
        assert report.deleted == 0
        assert ask("select count(*) as n from runs where deleted_at is null") == [{"n": 4}]

    def test_its_failure_is_in_its_receipt_and_the_rest_goes_on(
        self, server: DevServer, export: Any, ask: Ask
    ):
        server.faults.add(Fault(Matcher(origin="storage"), Responder.truncated(50)))
        _, report = export()
        assert report.statuses == {"complete": 3, "failed": 1}
        assert ask("select count(*) as n from history") == [{"n": 30}]
        failed = ask("select note from _wb_receipts where status = 'failed'")
        assert "MalformedResponse" in failed[0]["note"]
        plan, healed = export()
        assert [run.reason for run in plan.runs] == ["failed before"]
        assert healed.statuses == {"complete": 1}
        assert ask("select count(*) as n from history") == [{"n": 40}]

    def test_fail_commits_the_rest_and_raises(self, server: DevServer, export: Any, ask: Ask):
        server.faults.add(Fault(Matcher(origin="storage"), Responder.truncated(50)))
        with pytest.raises(ExportIncomplete, match="1 of 4") as caught:
            export(on_incomplete="fail")
        assert caught.value.advice.kind == "backoff"
        assert caught.value.report.statuses == {"complete": 3, "failed": 1}
        assert ask("select count(*) as n from history") == [{"n": 30}]

    def test_a_run_that_is_broken_for_good_fails_no_quiet_export(
        self, server: DevServer, export: Any, ask: Ask
    ):
        broken = Fault(Matcher(origin="storage"), Responder.truncated(50), times=None)
        export(filters={"name": {"$ne": "r0"}})
        server.faults.add(broken)
        with pytest.raises(ExportIncomplete, match="1 of 1"):
            export()
        _, report = export()
        assert report.statuses == {"failed": 1}
        with pytest.raises(ExportIncomplete, match="1 of 1"):
            export(on_incomplete="fail")

    def test_a_history_that_never_adds_up_is_read_twice_and_then_at_a_reconcile(
        self, server: DevServer, export: Any, ask: Ask
    ):
        export()
        server.seed_run("ann", "trials", "odd", history=HISTORY, parquet="off")
        one_row = {"data": {"project": {"run": {"history": ['{"_step": 0, "loss": 1.0}']}}}}
        page = Matcher(operation="HistoryPage")
        server.faults.add(Fault(page, Responder(status=200, body=json.dumps(one_row)), times=None))
        modes = ("incremental", "incremental", "incremental", "reconcile")
        reasons = [[run.reason for run in export(mode=mode)[0].runs] for mode in modes]
        assert reasons == [["new"], ["unexplained before"], [], ["unexplained before"]]
        with pytest.raises(ExportIncomplete):
            export(on_incomplete="fail")

    def test_a_run_deleted_meanwhile_is_marked(
        self, server: DevServer, api: Api, warehouse: Warehouse, ask: Ask
    ):
        plan = plan_export(REQUEST, api, warehouse)
        server.delete_run("ann", "trials", "r1")
        report = execute_export(plan, api, warehouse)
        assert report.statuses == {"complete": 3, "deleted": 1}
        assert ask("select count(*) as n from runs") == [{"n": 3}]

    def test_a_run_deleted_while_it_is_read_keeps_its_rows_and_their_count(
        self, server: DevServer, api: Api, warehouse: Warehouse, export: Any, ask: Ask
    ):
        export()
        held = "select rows_read from _wb_receipts where run_id = 'r1' and table_name = 'history'"
        before = ask(held)
        plan = plan_export(replace(REQUEST, mode="full"), api, warehouse)
        server.delete_run("ann", "trials", "r1")
        execute_export(plan, api, warehouse)
        assert ask(held) == before
        assert ask(f"{held} and status = 'deleted' and note is null") == before

    def test_rows_that_do_not_add_up_are_unexplained_and_read_again(
        self, server: DevServer, export: Any, ask: Ask
    ):
        def one_more_row() -> None:
            server.append_history("ann", "trials", "r0", [{"_step": 99, "loss": 1.0}])

        meanwhile = Fault(Matcher(origin="storage"), Responder(status=None), action=one_more_row)
        server.faults.add(meanwhile)
        _, report = export(filters={"name": "r0"})
        assert report.statuses == {"unexplained": 1}
        plan, report = export(filters={"name": "r0"})
        assert [run.reason for run in plan.runs] == ["unexplained before"]
        assert report.statuses == {"complete": 1}
        assert ask("select count(*) as n from history where run_id = 'r0'") == [{"n": 11}]

    def test_a_config_that_is_no_json_spoils_no_other_run(
        self, server: DevServer, export: Any, ask: Ask
    ):
        server.edit_run("ann", "trials", "r2", raw_config="{broken")
        export()
        assert ask("select count(*) as n from runs") == [{"n": 3}]
        note = "select note from _wb_receipts where table_name = 'runs' and status = 'failed'"
        assert "r2" in ask(note)[0]["note"]


@pytest.mark.usefixtures("project")
class TestEverything:
    def test_a_limit_stops_the_export_and_moves_no_watermark(
        self, server: DevServer, api: Api, warehouse: Warehouse, export: Any, ask: Ask
    ):
        limit = Responder.rate_limited(60)
        server.faults.add(Fault(Matcher(operation="RunParquetHistory"), limit))
        with pytest.raises(RateLimited) as caught:
            execute_export(plan_export(REQUEST, api, warehouse), api, warehouse)
        assert caught.value.advice.seconds is not None
        marks = warehouse.read_tables(REQUEST.dataset_name, ["_wb_state"])["_wb_state"]
        assert marks["watermark"].to_pylist() in ([], [None])

    def test_a_load_that_was_stopped_is_called_so_by_the_next(
        self, api: Api, warehouse: Warehouse, export: Any, ask: Ask
    ):
        def stop(_: Progress) -> None:
            raise KeyboardInterrupt

        plan = plan_export(replace(REQUEST, max_cells=1), api, warehouse)
        with pytest.raises(KeyboardInterrupt):
            execute_export(plan, api, warehouse, on_progress=stop)
        assert ask("select status from _wb_loads") == [{"status": "running"}]
        export()
        loads = ask("select status from _wb_loads order by started_at")
        assert [load["status"] for load in loads] == ["stopped", "complete"]

    def test_a_wrong_key_stops_before_anything_is_written(
        self, server: DevServer, warehouse: Warehouse
    ):
        wrong = Api({"base_url": server.url}, api_key="w" * 40)
        with pytest.raises(AuthenticationFailed):
            plan_export(REQUEST, wrong, warehouse)
        assert warehouse.read_tables(REQUEST.dataset_name, ["runs"])["runs"].num_rows == 0

    def test_a_missing_project(self, api: Api, warehouse: Warehouse):
        with pytest.raises(NotFound, match="ann/nothing"):
            plan_export(ExportRequest("ann", "nothing"), api, warehouse)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"mode": "sometimes"}, "mode='sometimes'"),
        ({"on_incomplete": "panic"}, "on_incomplete='panic'"),
        ({"entity": "a/b"}, "entity='a/b'"),
        ({"project": ""}, "project=''"),
        ({"max_workers": 0}, "max_workers=0"),
        ({"since": datetime(2026, 1, 1)}, "since=2026.* no time zone"),
        ({"until": datetime.max.replace(tzinfo=WEST)}, "until: '9999.*out of range"),
        ({"entity": 5}, "entity=5: give a name"),
        ({"project": None}, "project=None: give a name"),
        ({"dataset": 5}, "dataset=5: give a name, or None"),
        ({"mode": ["full"]}, r"mode=\['full'\]: give one of"),
        ({"filters": "x"}, "filters='x': give a dict"),
        ({"filters": ["a"]}, r"filters=\['a'\]: give a dict"),
        ({"filters": None}, "filters=None: give a dict"),
        ({"keys": 5}, "keys=5: give a tuple of names"),
        ({"keys": "loss"}, "keys='loss': give a tuple of names"),
        ({"keys": (key for key in "ab")}, "keys=<generator.*: give a tuple of names"),
        ({"tables": None}, "tables=None: give a tuple of names"),
        ({"states": {"finished"}}, "states={'finished'}: give a tuple of names"),
        ({"states": ("finshed",)}, "states='finshed': W&B has crashed, .*, running; for another"),
        ({"run_ids": [5]}, r"run_ids=\[5\]: give a tuple of names"),
        ({"since": "2026-01-01"}, "since='2026-01-01': give a datetime in UTC"),
        ({"until": date(2026, 1, 1)}, r"until=datetime.date\(2026, 1, 1\): give a datetime"),
        ({"reconcile_every_h": "x"}, "reconcile_every_h='x': give hours"),
        ({"reconcile_every_h": math.nan}, "reconcile_every_h=nan: give 0 or more"),
        ({"reconcile_every_h": -1}, "reconcile_every_h=-1: give 0 or more"),
        ({"max_workers": "8"}, "max_workers='8': give a whole number"),
        ({"max_workers": True}, "max_workers=True: give a whole number"),
        ({"max_cells": 1e6}, "max_cells=1000000.0: give a whole number"),
        ({"redact_secrets": "no"}, "redact_secrets='no': give True or False"),
    ],
)
def test_a_bad_request_names_field_and_value(changes: dict[str, Any], words: str):
    with pytest.raises(InvalidRequest, match=words):
        replace(REQUEST, **changes)


@pytest.mark.usefixtures("project")
def test_nobody_reads_on_when_an_export_has_ended(api: Api, warehouse: Warehouse) -> None:
    """Readers write into a folder that is about to be removed."""

    def interrupts(progress: Progress) -> None:
        raise KeyboardInterrupt

    plan = plan_export(replace(REQUEST, max_cells=1), api, warehouse)
    with pytest.raises(KeyboardInterrupt):
        execute_export(plan, api, warehouse, interrupts)
    names = [thread.name for thread in threading.enumerate()]
    assert not [name for name in names if name.startswith(("wb_ops-export", "wb_ops-commit"))]


def test_a_missing_folder_is_refused_before_any_request(server: DevServer, api: Api, tmp_path):
    nowhere = connect(f"duckdb:///{tmp_path}/nowhere/x.duckdb")
    with pytest.raises(WarehouseRefused, match="create it"):
        plan_export(REQUEST, api, nowhere)
    assert len(server.requests) == 0
