"""A second export reads what has changed, all of it, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from loss_rows import rows

from wb_ops import (
    Api,
    BackfillRequest,
    ExportRequest,
    Warehouse,
    execute_backfill,
    plan_backfill,
)
from wb_ops.devserver import DevServer, Fault, Matcher, Responder
from wb_ops.errors import InvalidRequest, PermissionDenied

Ask = Callable[[str], list[dict[str, Any]]]
OLD, REPORTED, EDITED = "2026-01-01T00:00:00", "2026-02-01T00:00:00", "2026-03-01T00:00:00"


def counts(any_: int, none: int) -> Responder:
    body = {"data": {"project": {"any": any_, "none": none}}}
    return Responder(status=200, body=json.dumps(body))


# A field that the server does not know: it matches all runs, or none, or is an error.
UNDERSTOOD_NOT = [counts(7, 7), counts(0, 0), Responder.error(400), Responder.error(500)]


@pytest.fixture
def project(server: DevServer) -> DevServer:
    """Six runs that ended long ago."""
    server.seed_runs(
        {
            "entity": "ann", "project": "trials", "run_id": f"r{index}", "history": rows(10),
            "created_at": OLD, "heartbeat_at": OLD, "summary": {"loss": index},
        }
        for index in range(6)
    )  # fmt: skip
    return server


def reasons(plan: Any) -> dict[str, str]:
    return {run.run_id: run.reason for run in plan.runs}


def requests_for(server: DevServer, action: Callable[[], Any]) -> tuple[Any, list[str]]:
    server.requests.clear()
    return action(), [one for one in server.requests.operations() if one]


@pytest.mark.usefixtures("project")
class TestIncremental:
    def test_nothing_changed_costs_two_requests(self, server: DevServer, export: Any):
        export()
        (plan, report), sent = requests_for(server, export)
        assert (plan.mode, plan.runs, report.runs) == ("incremental", (), 0)
        assert sent == ["FilterProbe", "Runs"]

    def test_a_new_run_is_added(self, server: DevServer, export: Any, ask: Ask):
        export()
        server.seed_run("ann", "trials", "new", history=rows(3))
        plan, report = export()
        assert reasons(plan) == {"new": "new"}
        assert report.history_rows == 3
        assert ask("select count(*) as n from history") == [{"n": 63}]

    def test_a_running_run_grows_and_then_finishes(self, server: DevServer, export: Any, ask: Ask):
        server.seed_run("ann", "trials", "live", state="running", history=rows(4))
        assert export()[1].statuses == {"complete": 6, "growing": 1}
        assert export()[1].runs == 0
        server.append_history("ann", "trials", "live", rows(3, start=4))
        assert reasons(export()[0]) == {"live": "grown"}
        assert ask("select count(*) as n from history where run_id = 'live'") == [{"n": 7}]
        server.finish_run("ann", "trials", "live")
        plan, report = export()
        assert reasons(plan) == {"live": "finished"}
        assert report.statuses == {"complete": 1}
        assert ask("select count(*) as n from history where run_id = 'live'") == [{"n": 7}]

    def test_a_run_resumed_long_after_is_seen(self, server: DevServer, export: Any, ask: Ask):
        export()
        server.append_history("ann", "trials", "r3", rows(5, start=10))
        assert reasons(export()[0]) == {"r3": "grown"}
        assert ask("select count(*) as n from history where run_id = 'r3'") == [{"n": 15}]

    def test_a_late_edit_is_found_where_the_server_filters_on_it(
        self, server: DevServer, export: Any, ask: Ask
    ):
        export()
        server.edit_run("ann", "trials", "r1", tags=["late"])
        (plan, _), sent = requests_for(server, export)
        assert (plan.mode, reasons(plan)) == ("incremental", {"r1": "edited"})
        assert sent == ["FilterProbe", "Runs"]
        assert ask("select tags from runs where run_id = 'r1'") == [{"tags": ["late"]}]
        assert export()[0].runs == ()

    def test_edits_before_the_last_reconcile_are_listed_no_more(
        self, server: DevServer, export: Any
    ):
        """While nothing reports, the watermark stays, and the time of the reconcile moves on."""
        server.seed_run("ann", "trials", "last", created_at=REPORTED, heartbeat_at=REPORTED)
        for index in range(6):
            server.edit_run("ann", "trials", f"r{index}", updated_at=EDITED)
        export()
        assert export()[0].listed == 1

    def test_an_edit_is_not_lost_by_an_export_that_could_not_ask_for_it(
        self, server: DevServer, export: Any
    ):
        server.seed_run("ann", "trials", "recent")
        export()
        server.edit_run("ann", "trials", "r1", tags=["late"])
        server.faults.add(Fault(Matcher(operation="FilterProbe"), Responder.error(500)))
        assert export()[0].runs == ()
        assert reasons(export()[0]) == {"r1": "edited"}

    @pytest.mark.parametrize("answer", UNDERSTOOD_NOT, ids=str)
    def test_late_edits_are_found_by_reconciling(
        self, server: DevServer, export: Any, ask: Ask, answer: Responder
    ):
        server.faults.add(Fault(Matcher(operation="FilterProbe"), answer, times=None))
        server.seed_run("ann", "trials", "recent")
        export()
        server.edit_run("ann", "trials", "r1", tags=["late"])
        assert export()[0].runs == (), "an edit moves no heartbeat"
        (plan, _), sent = requests_for(server, lambda: export(mode="reconcile"))
        assert reasons(plan) == {"r1": "edited"}
        assert sent == ["Runs"]
        assert ask("select tags from runs where run_id = 'r1'") == [{"tags": ["late"]}]

    def test_a_probe_that_fails_in_another_way_is_an_error(self, server: DevServer, export: Any):
        export()
        server.faults.add(Fault(Matcher(operation="FilterProbe"), Responder.error(403)))
        with pytest.raises(PermissionDenied):
            export()

    def test_reconciling_comes_due(self, server: DevServer, export: Any):
        export()
        assert export(reconcile_every_h=0.0)[0].mode == "reconcile"

    def test_a_deleted_run_is_marked_and_its_rows_stay(
        self, server: DevServer, export: Any, ask: Ask
    ):
        export()
        server.delete_run("ann", "trials", "r2")
        plan, report = export(mode="reconcile")
        assert (plan.deleted, report.deleted) == (("r2",), 1)
        gone = "select run_id from runs where deleted_at is not null"
        assert ask(gone) == [{"run_id": "r2"}]
        assert ask("select count(*) as n from history where run_id = 'r2'") == [{"n": 10}]
        receipt = "select status, rows_read, last_step from _wb_receipts where run_id = 'r2'"
        assert ask(f"{receipt} and table_name = 'history'") == [
            {"status": "deleted", "rows_read": 10, "last_step": 9}
        ]
        assert export(mode="reconcile")[0].deleted == ()

    def test_what_our_backfill_wrote_is_read_again(
        self, server: DevServer, api: Api, warehouse: Warehouse, export: Any, ask: Ask
    ):
        server.seed_run("ann", "trials", "recent")
        export()
        request = BackfillRequest(
            "ann", "trials",
            sql="select run_id, max(loss) as top from history where run_id < 'r3' group by 1",
        )  # fmt: skip
        execute_backfill(plan_backfill(request, api, warehouse), api, warehouse)
        plan, report = export()
        assert reasons(plan) == {"r0": "edited", "r1": "edited", "r2": "edited"}
        assert report.history_rows == 0
        tops = ask("select count(*) as n from runs where summary ->> 'top' is not null")
        assert tops == [{"n": 3}]
        assert export()[0].runs == ()

    def test_full_reads_everything_again_and_changes_nothing(self, export: Any, ask: Ask):
        export()
        before = ask("select * exclude (_load_id) from history order by all")
        plan, report = export(mode="full")
        assert set(reasons(plan).values()) == {"read again"}
        assert report.history_rows == 60
        assert ask("select * exclude (_load_id) from history order by all") == before

    def test_a_window_moves_no_watermark(self, server: DevServer, export: Any, ask: Ask):
        from datetime import UTC, datetime

        export()
        marks = ask("select watermark, updated_at from _wb_state")
        server.seed_run("ann", "trials", "march", created_at="2026-03-01T00:00:00", history=rows(2))
        plan, _ = export(
            since=datetime(2026, 3, 1, tzinfo=UTC), until=datetime(2026, 4, 1, tzinfo=UTC)
        )
        assert reasons(plan) == {"march": "new"}
        assert plan.listed == 1
        assert ask("select watermark, updated_at from _wb_state") == marks

    def test_fewer_keys_take_nothing_away(self, server: DevServer, export: Any, ask: Ask):
        export()
        server.append_history("ann", "trials", "r0", [{"_step": 99, "loss": 1.0, "other": 2.0}])
        export(keys=("other",))
        found = ask("select loss, other from history where run_id = 'r0' and _step in (3, 99)")
        assert sorted(row["loss"] for row in found) == [3 / 7, 1.0]

    def test_a_scope_has_its_own_watermark(self, export: Any, ask: Ask):
        export(filters={"name": "r0"})
        assert ask("select count(*) as n from runs") == [{"n": 1}]
        plan, _ = export()
        assert len(plan.runs) == 5
        assert len(ask("select scope from _wb_state")) == 2


def test_a_scope_is_a_hash_of_what_was_written():
    """As warehouses keep it: with another one their watermarks would be lost."""
    nested = {"$and": [{"config.lr": 0.1}, {"$and": [{"tags": "a"}]}]}
    asked = ExportRequest("e", "p", filters=nested, states=("finished",), keys=("loss",))
    assert (ExportRequest("e", "p").scope, asked.scope) == ("e12fc72902e8d5fc", "f17f54d4b890ef04")


@pytest.mark.parametrize("states", [None, ("finished",)])
def test_an_empty_and_is_refused_and_exports_nothing(
    project: DevServer, export: Any, states: Any
) -> None:
    """It must not pass for no filter at all."""
    with pytest.raises(InvalidRequest, match="at least one filter"):
        export(filters={"$and": []}, states=states)
    assert not project.requests


def test_every_load_is_on_record(project: DevServer, export: Any, ask: Ask):
    _, first = export()
    loads = ask("select load_id, status, runs, history_rows from _wb_loads")
    assert loads == [
        {"load_id": first.load_id, "status": "complete", "runs": 6, "history_rows": 60}
    ]
    receipts = ask(
        "select distinct status, rows_read, distinct_steps, server_rows, first_step, last_step, "
        "server_last_step, source from _wb_receipts where table_name = 'history'"
    )
    assert receipts == [
        {
            "status": "complete", "rows_read": 10, "distinct_steps": 10, "server_rows": 10,
            "first_step": 0, "last_step": 9, "server_last_step": 9, "source": "parquet",
        }
    ]  # fmt: skip
