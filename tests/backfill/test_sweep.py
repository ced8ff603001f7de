"""What was written is read back when late writers have come: what they took away comes again."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from wb_ops import (
    Api,
    BackfillRequest,
    OutcomeUnknown,
    ServerUnavailable,
    Warehouse,
    execute_backfill,
    plan_backfill,
    write_backfill,
)
from wb_ops.backfill import list_backfills
from wb_ops.backfill.sweep import LOGS_ON
from wb_ops.devserver import DevServer, Fault, Matcher, Responder
from wb_ops.settings import Settings

OLD = '{"acc": 0.50, "best": 0}'
REQUEST = BackfillRequest("ann", "trials", compute=lambda run: {"best": 1, "more": 2})
DATASET = "ann__trials"
TextOf = Callable[..., Any]


@pytest.fixture
def server(server: DevServer) -> DevServer:
    for run_id in ("r00", "r01"):
        server.seed_run("ann", "trials", run_id, summary=OLD)
    return server


def meanwhile(server: DevServer, nth: int, summary: str, operation: str = "Runs") -> None:
    """Somebody writes the whole summary of r00 when our nth request of this kind arrives.

    Of "Runs" the first is the plan's, the second the batch's, the third reads back.
    """

    def write() -> None:
        server.edit_run("ann", "trials", "r00", summary=summary)

    server.faults.add(Fault(Matcher(operation=operation, nth=nth), Responder(), action=write))


def write(api: Api, warehouse: Warehouse) -> Any:
    return execute_backfill(plan_backfill(REQUEST, api, warehouse), api, warehouse)


def outcomes(warehouse: Warehouse) -> list[tuple[str, str, str, str | None]]:
    sql = "select run_id, key, event, note from _wb_backfills where event <> 'intent' order by 1, 2"
    return [tuple(row.values()) for row in warehouse.query(sql, DATASET).to_pylist()]


def test_what_a_stale_writer_took_away_is_written_again_and_on_record(
    api: Api, warehouse: Warehouse, server: DevServer, text_of: TextOf
):
    meanwhile(server, 3, OLD)
    report = write(api, warehouse)
    assert (len(report.written), report.rewritten, report.requests) == (4, 2, 6)
    assert json.loads(text_of("r00")) == {"acc": 0.5, "best": 1, "more": 2}
    again = "another writer's write had taken it away: written again"
    assert outcomes(warehouse) == [
        ("r00", "best", "written", again), ("r00", "more", "written", again),
        ("r01", "best", "written", None), ("r01", "more", "written", None),
    ]  # fmt: skip


def test_what_is_taken_away_twice_is_written_twice(
    api: Api, warehouse: Warehouse, server: DevServer, text_of: TextOf
):
    meanwhile(server, 3, OLD)
    meanwhile(server, 5, OLD)
    report = write(api, warehouse)
    assert (len(report.written), report.rewritten) == (4, 4)
    assert json.loads(text_of("r00")) == {"acc": 0.5, "best": 1, "more": 2}


def test_what_is_taken_away_each_time_is_told_and_can_be_resumed(
    api: Api, warehouse: Warehouse, server: DevServer, text_of: TextOf
):
    for nth in range(3, 30):
        meanwhile(server, nth, OLD)
    with pytest.raises(OutcomeUnknown, match="2 values of ann/trials are not what was written"):
        write(api, warehouse)
    (record,) = list_backfills(warehouse, DATASET)
    assert (record.counts, record.is_finished) == ({"unverified": 2, "written": 2}, False)
    server.faults.clear()
    resumed = BackfillRequest("ann", "trials", resume=record.backfill_id)
    report = execute_backfill(plan_backfill(resumed, api, warehouse), api, warehouse)
    assert len(report.written) == 2
    assert json.loads(text_of("r00"))["best"] == 1


def test_a_key_that_somebody_has_set_since_is_a_conflict_and_the_other_comes_again(
    api: Api, warehouse: Warehouse, server: DevServer, text_of: TextOf
):
    meanwhile(server, 3, '{"acc": 0.50, "best": 7}')
    report = write(api, warehouse)
    assert [(value.run_id, value.key) for value in report.conflicts] == [("r00", "best")]
    assert json.loads(text_of("r00")) == {"acc": 0.5, "best": 7, "more": 2}


def test_a_member_that_was_put_back_and_is_taken_away_again_is_put_back_again(
    api: Api, warehouse: Warehouse, server: DevServer, text_of: TextOf
):
    """The third and fourth reading belong to putting it back; the fifth finds it missing."""
    meanwhile(server, 1, '{"acc": 0.50, "best": 0, "theirs": 1e400}', operation="UpsertBucket")
    meanwhile(server, 4, '{"acc": 0.50, "best": 1, "more": 2}')
    report = write(api, warehouse)
    assert (len(report.written), report.rewritten, report.repaired) == (4, 0, 2)
    assert text_of("r00") == '{"acc": 0.50, "best": 1, "more": 2, "theirs": 1e400}'


def test_a_run_that_is_deleted_before_it_is_read_back_is_told(
    api: Api, warehouse: Warehouse, server: DevServer
):
    def delete() -> None:
        server.delete_run("ann", "trials", "r00")

    server.faults.add(Fault(Matcher(operation="Runs", nth=3), Responder(), action=delete))
    report = write(api, warehouse)
    assert {value.run_id for value in report.gone} == {"r00"}
    assert {value.run_id for value in report.written} == {"r01"}


def test_what_cannot_be_read_back_is_unverified_and_a_resume_only_reads(
    warehouse: Warehouse, server: DevServer
):
    settings = Settings(api_key=server.api_key, base_url=server.url, max_attempts=1)
    api = Api(settings=settings)
    server.faults.add(Fault(Matcher(operation="Runs", nth=3), Responder.error(502), times=None))
    with pytest.raises(ServerUnavailable):
        write(api, warehouse)
    (record,) = list_backfills(warehouse, DATASET)
    assert record.counts == {"unverified": 4}
    server.faults.clear()
    server.requests.clear()
    resumed = BackfillRequest("ann", "trials", resume=record.backfill_id)
    report = execute_backfill(plan_backfill(resumed, api, warehouse), api, warehouse)
    assert len(report.written) == 4
    assert "UpsertBucket" not in server.requests.operations()
    assert list_backfills(warehouse, DATASET)[0].counts == {"written": 4}


def test_a_run_that_logs_on_wins_and_the_others_are_written(
    api: Api, warehouse: Warehouse, server: DevServer, text_of: TextOf
):
    """What its next line takes away is written once more, then it is told."""
    server.set_state("ann", "trials", "r00", "running")
    for nth in range(3, 30):
        meanwhile(server, nth, OLD)
    plan = plan_backfill(replace(REQUEST, include_running=True), api, warehouse)
    with pytest.raises(OutcomeUnknown, match="2 values"):
        execute_backfill(plan, api, warehouse)
    assert [line[2:] for line in outcomes(warehouse)] == [
        ("unverified", LOGS_ON), ("unverified", LOGS_ON), ("written", None), ("written", None),
    ]  # fmt: skip
    assert server.requests.operations().count("UpsertBucket") == 2
    server.faults.clear()
    server.set_state("ann", "trials", "r00", "finished")
    resumed = BackfillRequest("ann", "trials", resume=plan.backfill_id)
    assert len(write_backfill(resumed, api, warehouse).written) == 2
    assert json.loads(text_of("r00"))["best"] == 1


def test_a_value_that_a_running_run_took_away_altogether_is_told(
    api: Api, warehouse: Warehouse, server: DevServer
):
    server.set_state("ann", "trials", "r00", "running")
    meanwhile(server, 3, '{"loss": 1}')
    plan = plan_backfill(replace(REQUEST, include_running=True), api, warehouse)
    with pytest.raises(OutcomeUnknown, match=r"\(r00.best"):
        execute_backfill(plan, api, warehouse)
    notes = {line[1]: line[2:] for line in outcomes(warehouse) if line[0] == "r00"}
    assert notes["best"] == ("unverified", LOGS_ON)
    assert notes["more"][0] == "written"


def test_two_hundred_runs_are_read_back_in_a_request(
    api: Api, warehouse: Warehouse, server: DevServer
):
    server.seed_runs(
        {"entity": "ann", "project": "trials", "run_id": f"s{index:03}", "summary": OLD}
        for index in range(448)
    )
    plan = plan_backfill(REQUEST, api, warehouse)
    server.requests.clear()
    report = execute_backfill(plan, api, warehouse)
    assert (report.runs, len(report.written)) == (450, 900)
    assert report.requests <= 18 + 18 + 4


def test_a_server_that_fails_while_it_is_read_back_is_no_deletion(
    api: Api, warehouse: Warehouse, server: DevServer
):
    """Only the listing fails: each run seems broken, and none is gone."""
    for nth in range(3, 40):
        server.faults.add(Fault(Matcher(operation="Runs", nth=nth), Responder.error(500)))
    settings = Settings(api_key=server.api_key, base_url=server.url, max_attempts=1)
    with pytest.raises(OutcomeUnknown, match="4 values"):
        write(Api(settings=settings), warehouse)
    (record,) = list_backfills(warehouse, DATASET)
    assert (record.counts, record.is_finished) == ({"unverified": 4}, False)
    resumed = BackfillRequest("ann", "trials", resume=record.backfill_id)
    with pytest.raises(ServerUnavailable):
        plan_backfill(resumed, Api(settings=settings), warehouse)
    server.faults.clear()
    report = execute_backfill(plan_backfill(resumed, api, warehouse), api, warehouse)
    assert (len(report.written), report.gone) == (4, [])
