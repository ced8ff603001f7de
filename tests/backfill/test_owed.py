"""What a write of ours took away of others and could not put back is on record, and comes back."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from wb_ops import (
    Api,
    BackfillReport,
    BackfillRequest,
    OutcomeUnknown,
    PermissionDenied,
    ServerUnavailable,
    Warehouse,
    plan_backfill,
    write_backfill,
)
from wb_ops.backfill import list_backfills
from wb_ops.devserver import DevServer, Fault, Matcher, Responder
from wb_ops.settings import Settings

DATASET = "ann__trials"
REQUEST = BackfillRequest("ann", "trials", compute=lambda run: {"best": 1})
FULL = '{"acc": 0.5, "best": 0, "theirs": 1.50}'
CHANGED = '{"acc": 0.5, "best": 0, "theirs": 2.50}'
OURS = '{"acc": 0.5, "best": 7.50, "theirs": 1.50}'
TextOf = Callable[..., Any]


@pytest.fixture
def server(server: DevServer) -> DevServer:
    for run_id in ("r00", "r01"):
        config = {"lr": 0.1}
        server.seed_run(
            "ann", "trials", run_id, summary=FULL, tags=["old"], notes="n", config=config
        )
    return server


@pytest.fixture
def api(server: DevServer) -> Iterator[Api]:
    """Each request is sent once."""
    with Api(settings=Settings(server.api_key, server.url, max_attempts=1)) as api:
        yield api


def meanwhile(server: DevServer, cut_off: int | None = 0, **edit: Any) -> None:
    """Somebody edits r00 while our first write is on its way.

    After it the server cannot give us the runs for so many requests; None: for ever.
    """

    def interfere() -> None:
        server.edit_run("ann", "trials", "r00", **edit)
        if cut_off != 0:
            server.faults.add(Fault(Matcher(operation="Runs"), Responder.error(500), times=cut_off))

    write = Matcher(operation="UpsertBucket", nth=1)
    server.faults.add(Fault(write, Responder(), action=interfere))


def written_and_cut_off(api: Api, warehouse: Warehouse, request: BackfillRequest) -> BackfillReport:
    with pytest.raises(ServerUnavailable) as caught:
        write_backfill(request, api, warehouse)
    report = caught.value.report
    assert isinstance(report, BackfillReport)
    return report


def resumed(api: Api, warehouse: Warehouse, server: DevServer) -> BackfillReport:
    server.faults.clear()
    (record,) = list_backfills(warehouse, DATASET)
    assert not record.is_finished
    resume = BackfillRequest("ann", "trials", resume=record.backfill_id)
    return write_backfill(resume, api, warehouse)


def counts(warehouse: Warehouse) -> dict[str, int]:
    (record,) = list_backfills(warehouse, DATASET)
    return record.counts


def owed(warehouse: Warehouse) -> list[tuple[str, str | None, str | None]]:
    """What the journal has as owed to others in r00: key, as our write left it, as it was."""
    sql = (
        "select key, old_value, new_value from _wb_backfills "
        "where run_id = 'r00' and event = 'owed' order by key"
    )
    return [tuple(line.values()) for line in warehouse.query(sql, DATASET).to_pylist()]


@pytest.mark.parametrize(
    ("theirs", "line"),
    [
        (CHANGED, ("theirs", "1.50", "2.50")),
        (FULL.replace("}", ', "new": [1e400, NaN]}'), ("new", None, "[1e400, NaN]")),
        ('{"acc": 0.5, "best": 0}', ("theirs", "1.50", None)),
    ],
    ids=["changed", "added", "removed"],
)
def test_what_a_write_took_away_before_the_server_failed_is_put_back_by_a_resume(
    api: Api, warehouse: Warehouse, server: DevServer, text_of: TextOf, theirs: str,
    line: tuple[str, str | None, str | None], caplog: pytest.LogCaptureFixture,
):  # fmt: skip
    meanwhile(server, None, summary=theirs)
    report = written_and_cut_off(api, warehouse, REQUEST)
    assert (len(report.unverified), len(report.owed)) == (2, 1)
    assert owed(warehouse) == [line]
    assert counts(warehouse) == {"owed": 1, "unverified": 2}
    assert f"run r00: {line[0]} of other writers may be lost" in caplog.text
    assert text_of_after(server, text_of) == FULL.replace('"best": 0', '"best": 1')

    report = resumed(api, warehouse, server)
    assert (len(report.written), report.repaired, report.owed) == (2, 1, [])
    assert text_of("r00") == theirs.replace('"best": 0', '"best": 1')
    assert counts(warehouse) == {"settled": 1, "written": 2}


def text_of_after(server: DevServer, text_of: TextOf) -> str:
    server.faults.clear()
    return str(text_of("r00"))


def test_their_value_of_our_key_is_put_back_by_a_resume_and_ours_is_a_conflict(
    api: Api, warehouse: Warehouse, server: DevServer, text_of: TextOf
):
    meanwhile(server, None, summary=OURS)
    written_and_cut_off(api, warehouse, REQUEST)
    assert owed(warehouse) == [("best", "1", "7.50")]
    report = resumed(api, warehouse, server)
    assert [value.run_id for value in report.conflicts] == ["r00"]
    assert [value.run_id for value in report.written] == ["r01"]
    assert text_of("r00") == OURS
    assert counts(warehouse) == {"conflict": 1, "settled": 1, "written": 1}


@pytest.mark.parametrize(
    ("target", "values", "edit", "there"),
    [
        ("tags", {"ours": True}, {"tags": ["old", "theirs"]}, ["old", "ours", "theirs"]),
        ("tags", {"ours": True}, {"tags": []}, ["ours"]),
        ("notes", {"notes": "ours"}, {"notes": "theirs"}, "theirs"),
        (
            "config", {"team": "x"}, {"raw_config": '{"lr": {"desc": "rate", "value": 0.2}}'},
            '{"lr": {"desc": "rate", "value": 0.2}, "team": {"value": "x", "desc": null}}',
        ),
    ],
    ids=["a tag", "a removed tag", "notes", "config"],
)  # fmt: skip
def test_every_target_comes_back(
    api: Api, warehouse: Warehouse, server: DevServer, text_of: TextOf, target: Any,
    values: dict[str, Any], edit: dict[str, Any], there: Any,
):  # fmt: skip
    meanwhile(server, None, **edit)
    request = replace(REQUEST, compute=lambda run: values, target=target, filters={"name": "r00"})
    written_and_cut_off(api, warehouse, request)
    resumed(api, warehouse, server)
    found = text_of("r00", target)
    assert (sorted(found) if target == "tags" else found) == there
    assert set(counts(warehouse)) <= {"written", "conflict", "settled"}


def test_a_new_member_comes_back_without_a_resume_where_the_server_does_soon(
    api: Api, warehouse: Warehouse, server: DevServer, text_of: TextOf
):
    meanwhile(server, 1, summary=FULL.replace("}", ', "new": 1}'))
    assert written_and_cut_off(api, warehouse, REQUEST).repaired == 1
    assert json.loads(text_of("r00"))["new"] == 1
    # After an error nothing is read back twice: who resumes sees that it is there.
    server.requests.clear()
    assert resumed(api, warehouse, server).repaired == 0
    assert "UpsertBucket" not in server.requests.operations()
    assert counts(warehouse) == {"settled": 1, "written": 2}


def change(server: DevServer) -> None:
    server.edit_run("ann", "trials", "r00", summary='{"acc": 0.5, "best": 1, "theirs": 3}')


def delete(server: DevServer) -> None:
    server.delete_run("ann", "trials", "r00")


@pytest.mark.parametrize("since", [change, delete])
def test_what_somebody_has_cared_for_since_is_settled_and_left_alone(
    api: Api, warehouse: Warehouse, server: DevServer, text_of: TextOf,
    since: Callable[[DevServer], None],
):  # fmt: skip
    meanwhile(server, None, summary=CHANGED)
    written_and_cut_off(api, warehouse, REQUEST)
    since(server)
    report = resumed(api, warehouse, server)
    assert report.repaired == 0
    assert set(counts(warehouse)) <= {"settled", "written", "gone"}
    if since is change:
        assert text_of("r00") == '{"acc": 0.5, "best": 1, "theirs": 3}'


def test_a_read_only_run_keeps_its_debt_until_it_can_be_written_to(
    api: Api, warehouse: Warehouse, server: DevServer, text_of: TextOf
):
    meanwhile(server, None, summary=CHANGED)
    written_and_cut_off(api, warehouse, REQUEST)
    server.edit_run("ann", "trials", "r00", read_only=True)
    report = resumed(api, warehouse, server)
    assert {(value.key, value.reason) for value in report.left} == {
        ("best", "read-only"), ("theirs", "read-only")
    }  # fmt: skip
    assert counts(warehouse) == {"owed": 1, "unverified": 1, "written": 1}
    server.edit_run("ann", "trials", "r00", read_only=False)
    assert resumed(api, warehouse, server).repaired == 1
    assert json.loads(text_of("r00"))["theirs"] == 2.5


def test_our_value_in_place_of_theirs_waits_where_a_read_only_run_keeps_it(
    api: Api, warehouse: Warehouse, server: DevServer, text_of: TextOf
):
    meanwhile(server, None, summary=OURS)
    written_and_cut_off(api, warehouse, REQUEST)
    server.edit_run("ann", "trials", "r00", read_only=True)
    report = resumed(api, warehouse, server)
    assert [(value.new, value.reason) for value in report.left] == [
        ("1", "read-only"), ("7.50", "read-only")
    ]  # fmt: skip
    assert counts(warehouse) == {"owed": 1, "unverified": 1, "written": 1}
    server.edit_run("ann", "trials", "r00", read_only=False)
    resumed(api, warehouse, server)
    assert text_of("r00") == OURS
    assert counts(warehouse) == {"conflict": 1, "settled": 1, "written": 1}


def test_our_value_in_place_of_theirs_is_gone_with_its_run(
    api: Api, warehouse: Warehouse, server: DevServer
):
    meanwhile(server, None, summary=OURS)
    written_and_cut_off(api, warehouse, REQUEST)
    delete(server)
    resumed(api, warehouse, server)
    assert counts(warehouse) == {"gone": 1, "settled": 1, "written": 1}


def test_a_run_that_became_read_only_between_plan_and_resume_keeps_its_debt(
    api: Api, warehouse: Warehouse, server: DevServer
):
    meanwhile(server, None, summary=FULL.replace("}", ', "new": 1}'))
    written_and_cut_off(api, warehouse, REQUEST)
    server.faults.clear()
    closing = Fault(
        Matcher(operation="Runs", nth=2), Responder(),
        action=lambda: server.edit_run("ann", "trials", "r00", read_only=True),
    )  # fmt: skip
    (record,) = list_backfills(warehouse, DATASET)
    plan = plan_backfill(
        BackfillRequest("ann", "trials", resume=record.backfill_id), api, warehouse
    )
    assert plan.counts == {"put_back": 1, "set": 2}
    server.faults.add(closing)
    with pytest.raises(PermissionDenied):
        write_backfill(plan.request, api, warehouse)
    assert counts(warehouse) == {"failed": 1, "owed": 1, "written": 1}


def test_an_undo_leaves_a_value_alone_in_whose_place_another_one_belongs(
    api: Api, warehouse: Warehouse, server: DevServer, text_of: TextOf
):
    meanwhile(server, None, summary=OURS)
    report = written_and_cut_off(api, warehouse, REQUEST)
    server.faults.clear()
    undo = BackfillRequest("ann", "trials", undo=report.backfill_id)
    plan = plan_backfill(undo, api, warehouse)
    assert plan.counts == {
        "set": 1, "skipped (another writer's value is owed there: resume first)": 1
    }  # fmt: skip
    resume = BackfillRequest("ann", "trials", resume=report.backfill_id)
    write_backfill(resume, api, warehouse)
    write_backfill(undo, api, warehouse)
    assert (text_of("r00"), text_of("r01")) == (OURS, FULL)


def test_what_is_owed_is_no_value_of_ours(api: Api, warehouse: Warehouse, server: DevServer):
    """It is there again, and no backfill has written it: `overwrite_if_older` leaves it alone."""
    meanwhile(server, None, summary=CHANGED)
    written_and_cut_off(api, warehouse, REQUEST)
    resumed(api, warehouse, server)
    request = replace(REQUEST, compute=lambda run: {"theirs": 9}, policy="overwrite_if_older")
    assert plan_backfill(request, api, warehouse).counts == {
        "skipped (not written by a backfill)": 2
    }


def test_their_value_of_our_key_that_cannot_be_put_back_is_on_record(
    api: Api, warehouse: Warehouse, server: DevServer, text_of: TextOf
):
    server.faults.add(Fault(Matcher(operation="UpsertBucket", nth=2), Responder.error(403)))
    meanwhile(server, summary='{"acc": 0.5, "best": 7.50, "theirs": 2}')
    with pytest.raises(PermissionDenied) as caught:
        write_backfill(REQUEST, api, warehouse)
    assert [value.run_id for value in caught.value.report.unverified] == ["r00"]
    assert owed(warehouse) == [("best", "1", "7.50"), ("theirs", "1.50", "2")]
    resumed(api, warehouse, server)
    assert text_of("r00") == '{"acc": 0.5, "best": 7.50, "theirs": 2}'


@pytest.mark.parametrize(
    ("theirs", "event", "line"),
    [
        (CHANGED, "written", ("theirs", "1.50", "2.50")),
        (OURS, "unverified", ("best", "1", "7.50")),
    ],
    ids=["their key", "our key"],
)
def test_what_the_server_refuses_to_take_back_is_on_record_though_all_else_is_written(
    api: Api, warehouse: Warehouse, server: DevServer, theirs: str, event: str,
    line: tuple[str, str, str],
):  # fmt: skip
    meanwhile(server, summary=theirs)
    body = json.dumps({"errors": [{"message": "the summary of this run is too large"}]})
    refusal = Responder(status=200, body=body)
    server.faults.add(Fault(Matcher(operation="UpsertBucket", nth=2), refusal))
    with nullcontext() if event == "written" else pytest.raises(OutcomeUnknown):
        write_backfill(REQUEST, api, warehouse)
    assert owed(warehouse) == [line]
    assert counts(warehouse) == {"owed": 1, "written": 1, event: 1} | (
        {"written": 2} if event == "written" else {}
    )


@pytest.mark.parametrize(
    ("theirs", "line"),
    [
        (CHANGED, ("theirs", "1.50", "2.50")),
        (FULL.replace("}", ', "new": 1.50}'), ("new", None, "1.50")),
    ],
    ids=["changed", "added"],
)
def test_what_cannot_be_put_back_into_a_run_that_became_read_only_is_on_record(
    api: Api, warehouse: Warehouse, server: DevServer, theirs: str,
    line: tuple[str, str | None, str],
):  # fmt: skip
    meanwhile(server, summary=theirs)
    # The plan lists the runs, the batch reads them before its write, then they are read back.
    closing = Fault(
        Matcher(operation="Runs", nth=3), Responder(),
        action=lambda: server.edit_run("ann", "trials", "r00", read_only=True),
    )  # fmt: skip
    server.faults.add(closing)
    assert len(write_backfill(REQUEST, api, warehouse).written) == 2
    assert owed(warehouse) == [line]


@pytest.mark.parametrize(
    ("rounds", "line"), [(3, ("new", "2", "3")), (2, ("new", "1", "2"))],
    ids=["each round", "two rounds, then the server fails"],
)  # fmt: skip
def test_a_new_member_that_its_writer_changes_while_we_put_it_back_is_on_record(
    api: Api, warehouse: Warehouse, server: DevServer, rounds: int, line: tuple[str, str, str]
):
    def change_it(nth: int) -> None:
        best = 0 if nth == 1 else 1
        theirs = f'{{"acc": 0.5, "best": {best}, "theirs": 1.50, "new": {nth}}}'
        server.edit_run("ann", "trials", "r00", summary=theirs)
        if nth == rounds == 2:
            server.faults.add(Fault(Matcher(operation="Runs"), Responder.error(500), times=None))

    for nth in range(1, rounds + 1):
        write = Matcher(operation="UpsertBucket", nth=nth)
        server.faults.add(Fault(write, Responder(), action=partial(change_it, nth)))
    with nullcontext() if rounds == 3 else pytest.raises(ServerUnavailable):
        write_backfill(REQUEST, api, warehouse)
    assert owed(warehouse) == [line]
