"""What was written is on record: it can be finished, taken back, listed and joined."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from wb_ops import (
    Api,
    BackfillRequest,
    InvalidRequest,
    PermissionDenied,
    Warehouse,
    WarehouseBusy,
    WarehouseUnavailable,
    connect,
    execute_backfill,
    plan_backfill,
)
from wb_ops.backfill import list_backfills
from wb_ops.backfill.journal import Journal
from wb_ops.backfill.ledger import Ledger
from wb_ops.backfill.planned import PlannedValue
from wb_ops.backfill.report import BackfillReport
from wb_ops.client.comparison import same_json
from wb_ops.devserver import DevServer, Fault, Matcher, Responder
from wb_ops.warehouse import Owner

DATASET = "ann__trials"
BEST = BackfillRequest(
    "ann", "trials", sql="select run_id, max(acc) + 1 as acc, 1 as new from history group by run_id"
)
TextOf = Callable[..., Any]


def write(request: BackfillRequest, api: Api, warehouse: Warehouse) -> Any:
    return execute_backfill(plan_backfill(request, api, warehouse), api, warehouse)


def undo(backfill_id: str) -> BackfillRequest:
    return BackfillRequest("ann", "trials", undo=backfill_id)


@pytest.mark.usefixtures("project")
class TestUndo:
    def test_it_gives_every_summary_back_and_can_be_undone_itself(
        self, api: Api, warehouse: Warehouse, text_of: TextOf
    ):
        before = {node["name"]: node["summaryMetrics"] for node in nodes(api)}
        done = write(BEST, api, warehouse)
        assert (len(done.written), done.runs) == (120, 60)
        back = write(undo(done.backfill_id), api, warehouse)
        assert len(back.written) == 120
        after = {node["name"]: node["summaryMetrics"] for node in nodes(api)}
        assert all(same_json(after[run_id], text) for run_id, text in before.items())
        assert '"h": {"_type":"histogram","bins":[1e400,NaN]}' in after["r07"]
        assert '"acc": 0.5,' in after["r07"]
        write(undo(back.backfill_id), api, warehouse)
        assert json.loads(text_of("r07"))["new"] == 1

    def test_what_is_ours_no_more_is_reported_and_left(
        self, api: Api, warehouse: Warehouse, project: DevServer, text_of: TextOf
    ):
        done = write(BEST, api, warehouse)
        project.edit_run("ann", "trials", "r00", summary='{"acc": 7, "new": 1}')
        project.edit_run("ann", "trials", "r01", summary='{"acc": 0.5}')
        project.delete_run("ann", "trials", "r02")
        plan = plan_backfill(undo(done.backfill_id), api, warehouse)
        assert plan.counts == {
            "conflict": 1, "set": 115, "skipped (no such run)": 2, "unchanged": 2,
        }  # fmt: skip
        report = execute_backfill(plan, api, warehouse)
        assert [(v.run_id, v.key) for v in report.conflicts] == [("r00", "acc")]
        assert text_of("r00") == '{"acc": 7}'

    @pytest.mark.parametrize(
        ("target", "values", "field"),
        [
            ("tags", {"a": True, "old": False}, "tags"),
            ("notes", {"notes": "x"}, "notes"),
            ("config", {"lr": 9, "k": 1}, "config"),
        ],
    )
    def test_it_works_for_every_target(
        self, api: Api, warehouse: Warehouse, text_of: TextOf, target: Any, values: Any, field: str
    ):
        before = text_of("r00", field)
        request = BackfillRequest(
            "ann", "trials", compute=lambda run: values, target=target, filters={"name": "r00"}
        )
        done = write(request, api, warehouse)
        assert text_of("r00", field) != before
        write(undo(done.backfill_id), api, warehouse)
        after = text_of("r00", field)
        if field == "config":
            assert json.loads(after)["lr"]["value"] == json.loads(before)["lr"]["value"]
            assert json.loads(after).keys() == json.loads(before).keys()
        else:
            assert after == before

    def test_an_unknown_backfill_is_refused(self, api: Api, warehouse: Warehouse):
        with pytest.raises(InvalidRequest, match="no backfill 'bf-none'"):
            plan_backfill(undo("bf-none"), api, warehouse)


@pytest.mark.usefixtures("project")
class TestResume:
    def test_what_was_refused_is_written_under_the_same_id(
        self, api: Api, warehouse: Warehouse, project: DevServer
    ):
        plan = plan_backfill(BEST, api, warehouse)
        project.faults.add(
            Fault(Matcher(operation="UpsertBucket", nth=2), Responder.error(403), times=None)
        )
        with pytest.raises(PermissionDenied):
            execute_backfill(plan, api, warehouse)
        project.faults.clear()
        (record,) = list_backfills(warehouse, DATASET)
        assert (record.is_finished, record.runs) == (False, 60)
        assert record.counts["failed"] > 0
        assert sum(record.counts.values()) == 120
        request = BackfillRequest("ann", "trials", resume=plan.backfill_id)
        report = write(request, api, warehouse)
        assert (report.backfill_id, len(report.written)) == (
            plan.backfill_id,
            120 - record.counts.get("written", 0),
        )
        (record,) = list_backfills(warehouse, DATASET)
        assert (record.is_finished, record.counts) == (True, {"written": 120})
        assert plan_backfill(request, api, warehouse).values == ()
        assert plan_backfill(BEST, api, warehouse).to_set == ()

    def test_the_plan_of_a_finished_backfill_has_nothing_left(self, api: Api, warehouse: Warehouse):
        done = write(BEST, api, warehouse)
        request = BackfillRequest("ann", "trials", resume=done.backfill_id)
        assert plan_backfill(request, api, warehouse).values == ()


@pytest.mark.usefixtures("project")
def test_the_journal_is_listed_and_can_be_joined(api: Api, warehouse: Warehouse):
    assert list_backfills(warehouse, DATASET) == []
    done = write(replace(BEST, filters={"name": "r00"}), api, warehouse)
    back = write(undo(done.backfill_id), api, warehouse)
    newest, oldest = list_backfills(warehouse, DATASET)
    assert (newest.backfill_id, oldest.backfill_id) == (back.backfill_id, done.backfill_id)
    assert (oldest.target, oldest.runs, oldest.counts) == ("summary", 1, {"written": 2})
    joined = warehouse.query(
        "select display_name, key, old_value, new_value from _wb_backfills join runs using (run_id)"
        " where event = 'written' order by recorded_at, key",
        DATASET,
    ).to_pylist()
    assert [(row["key"], row["old_value"], row["new_value"]) for row in joined] == [
        ("acc", "0.5", "1.02"), ("new", None, "1"), ("acc", "1.02", "0.5"), ("new", "1", None),
    ]  # fmt: skip


def nodes(api: Api) -> list[dict[str, Any]]:
    return list(api.source("ann/trials").iter_nodes({"state": "finished"}))


def test_outcomes_are_held_while_another_process_has_the_journal(tmp_path: Path):
    """What one append could not take comes with the next."""
    path = tmp_path / "held.duckdb"
    warehouse = connect(f"duckdb:///{path}", lock_timeout_s=0.1)
    value = PlannedValue("r00", "best", None, "1", "set")
    ledger = Ledger(BackfillReport("bf-1"), Journal(warehouse, "d", "bf-1", Owner("ann", "trials")))
    ledger.journal.intend([value])
    holder = hold(path)
    ledger.add([(value, "written", None)])
    with pytest.raises(WarehouseBusy):
        ledger.flush()
    holder.communicate(b"\n")
    ledger.flush()
    (record,) = list_backfills(warehouse, "d")
    assert record.counts == {"written": 1}


@pytest.mark.usefixtures("project")
def test_a_journal_that_was_away_for_a_time_ends_no_backfill_as_a_success(
    api: Api, warehouse: Warehouse, project: DevServer, monkeypatch: pytest.MonkeyPatch
):
    """No batch is begun while it is away; the rest is told, though it is back at the end."""
    path = Path(warehouse.url.removeprefix("duckdb:///"))
    patient = connect(warehouse.url, lock_timeout_s=0.1)
    monkeypatch.setattr("wb_ops.backfill.ledger.JOURNAL_EVERY_S", 0.0)
    some = {"name": {"$in": ["r00", "r01", "r02", "r03"]}}
    request = BackfillRequest(
        "ann", "trials", compute=lambda run: {"best": 1}, filters=some, safe=True
    )
    plan = plan_backfill(request, api, warehouse)
    project.edit_run("ann", "trials", "r00", summary='{"best": 5}')
    holders: list[subprocess.Popen[bytes]] = []
    reading = Fault(
        Matcher(operation="Runs"), Responder(), action=lambda: holders.append(hold(path))
    )
    project.faults.add(reading)

    def release(done: int, total: int) -> None:
        while holders:
            holders.pop().communicate(b"\n")

    with pytest.raises(WarehouseUnavailable, match="values of ann/trials were not sent") as caught:
        execute_backfill(plan, api, patient, release)
    report = caught.value.report
    assert [value.run_id for value in report.conflicts] == ["r00"]
    told = [*report.written, *report.not_sent]
    assert sorted(value.run_id for value in told) == ["r01", "r02", "r03"]
    (record,) = list_backfills(warehouse, DATASET)
    assert record.counts["not_sent"] == len(report.not_sent) > 0


def hold(path: Path) -> subprocess.Popen[bytes]:
    """Another process that keeps the file open until it is told to end."""
    code = "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print(1, flush=True); input()"
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdout is not None
    holder.stdout.readline()
    return holder
