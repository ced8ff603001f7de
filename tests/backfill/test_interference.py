"""Another writer between our reading and our writing: found, put back, told."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from wb_ops import Api, BackfillRequest, Warehouse, execute_backfill, plan_backfill
from wb_ops.devserver import DevServer, Fault, Matcher, Responder

REQUEST = BackfillRequest(
    "ann", "trials", compute=lambda run: {"best": 1}, filters={"name": {"$in": ["r00", "r01"]}}
)
FULL = '{"acc": 0.5, "best": 0, "theirs": 1.50}'
TextOf = Callable[..., Any]


@pytest.fixture
def server(server: DevServer) -> DevServer:
    for run_id in ("r00", "r01"):
        server.seed_run("ann", "trials", run_id, summary=FULL, tags=["old"], notes="n")
    return server


def meanwhile(
    server: DevServer, nth: int = 1, operation: str = "UpsertBucket", **edit: Any
) -> None:
    """Somebody edits r00 while our nth request of this kind is on its way."""
    server.faults.add(
        Fault(
            Matcher(operation=operation, nth=nth),
            Responder(),
            action=lambda: server.edit_run("ann", "trials", "r00", **edit),
        )
    )


def write(api: Api, warehouse: Warehouse, request: BackfillRequest = REQUEST) -> Any:
    return execute_backfill(plan_backfill(request, api, warehouse), api, warehouse)


@pytest.mark.parametrize(
    "theirs",
    [
        '{"acc": 0.5, "best": 0, "theirs": 2.50}',
        '{"acc": 0.5, "best": 0, "theirs": 1.50, "new": {"_type": "table", "x": NaN}}',
        '{"acc": 0.5, "best": 0}',
    ],
    ids=["changed", "added", "removed"],
)
def test_their_members_are_put_back_with_their_text(
    api: Api, warehouse: Warehouse, server: DevServer, text_of: TextOf, theirs: str
):
    meanwhile(server, summary=theirs)
    report = write(api, warehouse)
    assert (len(report.written), report.repaired, report.conflicts) == (2, 1, [])
    assert text_of("r00") == theirs.replace('"best": 0', '"best": 1')
    assert text_of("r01") == FULL.replace('"best": 0', '"best": 1')


def test_a_second_change_while_the_first_is_put_back_wins(
    api: Api, warehouse: Warehouse, server: DevServer, text_of: TextOf
):
    meanwhile(server, nth=1, summary='{"acc": 0.5, "best": 0, "theirs": 2}')
    meanwhile(server, nth=2, summary='{"acc": 0.5, "best": 1, "theirs": 3}')
    assert len(write(api, warehouse).written) == 2
    assert json.loads(text_of("r00")) == {"acc": 0.5, "best": 1, "theirs": 3}


def test_their_value_of_our_key_comes_back_and_is_a_conflict(
    api: Api, warehouse: Warehouse, server: DevServer, text_of: TextOf
):
    meanwhile(server, summary='{"acc": 0.5, "best": 7, "theirs": 1.50}')
    report = write(api, warehouse)
    assert [value.run_id for value in report.conflicts] == ["r00"]
    assert [value.run_id for value in report.written] == ["r01"]
    assert text_of("r00") == FULL.replace('"best": 0', '"best": 7')


def test_a_value_of_ours_that_a_stale_writer_took_away_is_written_again(
    api: Api, warehouse: Warehouse, server: DevServer, text_of: TextOf
):
    """The third listing is the reading back."""
    meanwhile(server, nth=3, operation="Runs", summary=FULL)
    report = write(api, warehouse)
    assert (len(report.written), report.requests) == (2, 5)
    assert json.loads(text_of("r00"))["best"] == 1


def test_their_value_after_ours_stays_and_is_a_conflict(
    api: Api, warehouse: Warehouse, server: DevServer, text_of: TextOf
):
    meanwhile(server, nth=3, operation="Runs", summary='{"best": 9}')
    report = write(api, warehouse)
    assert [value.run_id for value in report.conflicts] == ["r00"]
    assert text_of("r00") == '{"best": 9}'


def test_tags_of_others_stay(api: Api, warehouse: Warehouse, server: DevServer, text_of: TextOf):
    meanwhile(server, tags=["theirs"])
    request = BackfillRequest(
        "ann", "trials", compute=lambda run: {"ours": True}, target="tags",
        filters={"name": "r00"},
    )  # fmt: skip
    assert len(write(api, warehouse, request).written) == 1
    assert sorted(text_of("r00", "tags")) == ["ours", "theirs"]


def test_notes_that_somebody_writes_meanwhile_stay(
    api: Api, warehouse: Warehouse, server: DevServer, text_of: TextOf
):
    meanwhile(server, notes="theirs")
    request = BackfillRequest(
        "ann", "trials", compute=lambda run: {"notes": "ours"}, target="notes",
        filters={"name": "r00"},
    )  # fmt: skip
    assert len(write(api, warehouse, request).conflicts) == 1
    assert text_of("r00", "notes") == "theirs"


def test_a_member_of_the_config_comes_back_with_its_description(
    api: Api, warehouse: Warehouse, server: DevServer, text_of: TextOf
):
    theirs = '{"lr": {"value": 0.10, "desc": "rate"}}'
    meanwhile(server, raw_config=theirs)
    request = BackfillRequest(
        "ann", "trials", compute=lambda run: {"team": "x"}, target="config",
        filters={"name": "r00"},
    )  # fmt: skip
    assert len(write(api, warehouse, request).written) == 1
    assert '"lr": {"value": 0.10, "desc": "rate"}' in text_of("r00", "config")
    assert json.loads(text_of("r00", "config"))["team"]["value"] == "x"


def test_a_server_that_does_not_say_what_is_replaced_is_written_to_all_the_same(
    api: Api, warehouse: Warehouse, server: DevServer
):
    server.faults.add(Fault(Matcher(operation="UpsertBucket"), Responder.error(400, "no fields")))
    assert len(write(api, warehouse).written) == 2
    documents = [one.document for one in server.requests if one.operation == "UpsertBucket"]
    assert ["before0" in document for document in documents] == [True, False]


def test_a_run_that_logs_again_is_left_alone(
    api: Api, warehouse: Warehouse, server: DevServer, text_of: TextOf
):
    plan = plan_backfill(REQUEST, api, warehouse)
    server.set_state("ann", "trials", "r00", "running")
    report = execute_backfill(plan, api, warehouse)
    assert [value.run_id for value in report.conflicts] == ["r00"]
    assert text_of("r00") == FULL


def test_a_run_that_became_read_only_is_told_and_the_others_are_written(
    api: Api, warehouse: Warehouse, server: DevServer
):
    plan = plan_backfill(REQUEST, api, warehouse)
    meanwhile(server, read_only=True)
    report = execute_backfill(plan, api, warehouse)
    assert [value.run_id for value in report.failed] == ["r00"]
    assert [value.run_id for value in report.written] == ["r01"]


def test_a_run_that_is_deleted_between_reading_and_writing_is_told(
    api: Api, warehouse: Warehouse, server: DevServer
):
    delete = Fault(
        Matcher(operation="UpsertBucket"), Responder(),
        action=lambda: server.delete_run("ann", "trials", "r00"),
    )  # fmt: skip
    server.faults.add(delete)
    report = write(api, warehouse)
    assert [value.run_id for value in report.gone] == ["r00"]
    assert [value.run_id for value in report.written] == ["r01"]


def test_the_window_is_measured(api: Api, warehouse: Warehouse, server: DevServer):
    server.faults.add(Fault(Matcher(operation="UpsertBucket"), Responder.slow(0.2)))
    assert write(api, warehouse).window_s >= 0.2


def test_a_server_that_looks_up_one_run_at_a_time_is_asked_with_a_filter(
    api: Api, warehouse: Warehouse, server: DevServer
):
    server.faults.add(Fault(Matcher(operation="Runs", nth=2), Responder.error(400, "too complex")))
    assert len(write(api, warehouse).written) == 2
