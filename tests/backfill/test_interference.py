"""Another writer between our reading and our writing: found, put back, told."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from wb_ops import (
    Api,
    BackfillRequest,
    InvalidRequest,
    OutcomeUnknown,
    PermissionDenied,
    Warehouse,
    execute_backfill,
    plan_backfill,
)
from wb_ops.devserver import DevServer, Fault, Matcher, Responder

REQUEST = BackfillRequest(
    "ann", "trials", compute=lambda run: {"best": 1}, filters={"name": {"$in": ["r00", "r01"]}}
)
TOO_COMPLEX = '{"errors": [{"message": "query too complex"}]}'
FULL = '{"acc": 0.5, "best": 0, "theirs": 1.50}'
TextOf = Callable[..., Any]
# The plan lists the runs, the batch reads them before its write, then they are read back.
READING_BACK = 3


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


def test_their_value_after_ours_stays_and_is_a_conflict(
    api: Api, warehouse: Warehouse, server: DevServer, text_of: TextOf
):
    meanwhile(server, nth=READING_BACK, operation="Runs", summary='{"best": 9}')
    report = write(api, warehouse)
    assert [value.run_id for value in report.conflicts] == ["r00"]
    assert text_of("r00") == '{"best": 9}'


@pytest.mark.parametrize(
    ("theirs", "is_conflict"),
    [('{"acc": 2.50, "best": 0, "theirs": 1.50}', False), ('{"acc": 0.5, "best": 7}', True)],
    ids=["their key", "our key"],
)
def test_what_they_write_while_we_wait_for_a_limit_stays(
    api: Api, warehouse: Warehouse, server: DevServer, text_of: TextOf, theirs: str,
    is_conflict: bool,
):  # fmt: skip
    """The write that comes after the wait is made of a fresh reading."""

    def edit() -> None:
        server.edit_run("ann", "trials", "r00", summary=theirs)

    limit = Responder.rate_limited(0.1)
    server.faults.add(Fault(Matcher(operation="UpsertBucket"), limit, action=edit))
    report = write(api, warehouse)
    assert [value.run_id for value in report.conflicts] == (["r00"] if is_conflict else [])
    best = '"best": 7' if is_conflict else '"best": 1'
    assert text_of("r00") == theirs.replace('"best": 0', best)
    assert json.loads(text_of("r01"))["best"] == 1


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
    refusal = Responder.error(400, "no fields")
    server.faults.add(Fault(Matcher(operation="UpsertBucket"), refusal, times=2))
    report = write(api, warehouse)
    assert (len(report.written), report.watched) == (2, False)
    documents = [one.document for one in server.requests if one.operation == "UpsertBucket"]
    assert ["before0" in document for document in documents] == [True, True, False]


def test_one_refused_write_does_not_end_the_watch_for_others(
    api: Api, warehouse: Warehouse, server: DevServer, text_of: TextOf
):
    """The first write meets 409 and comes again; meanwhile somebody adds a key."""
    server.faults.add(Fault(Matcher(operation="UpsertBucket", nth=1), Responder.error(409)))
    meanwhile(server, nth=2, summary=FULL.replace("}", ', "new": 1}'))
    report = write(api, warehouse)
    assert (len(report.written), report.repaired, report.watched) == (2, 1, True)
    assert json.loads(text_of("r00")) == {"acc": 0.5, "best": 1, "theirs": 1.5, "new": 1}


@pytest.mark.parametrize("message", ["context deadline exceeded", "rate limit exceeded"])
def test_a_write_that_may_have_been_carried_out_is_not_sent_again_blind(
    api: Api, warehouse: Warehouse, server: DevServer, message: str
):
    """The answer comes from the fault, so nothing was written: only a reading can tell."""
    body = json.dumps({"errors": [{"message": message}]})
    fault = Fault(Matcher(operation="UpsertBucket"), Responder(status=200, body=body))
    server.faults.add(fault)
    with pytest.raises(OutcomeUnknown):
        write(api, warehouse)
    assert server.requests.operations().count("UpsertBucket") == 1


def test_what_the_server_said_of_the_other_runs_counts_though_one_is_refused(
    api: Api, warehouse: Warehouse, server: DevServer, text_of: TextOf
):
    plan = plan_backfill(REQUEST, api, warehouse)

    def interfere() -> None:
        server.edit_run("ann", "trials", "r00", summary=FULL.replace("}", ', "new": 1}'))
        server.edit_run("ann", "trials", "r01", read_only=True)

    server.faults.add(Fault(Matcher(operation="UpsertBucket"), Responder(), action=interfere))
    with pytest.raises(PermissionDenied, match=r"1 values .* were refused \(r01.best\)") as caught:
        execute_backfill(plan, api, warehouse)
    assert caught.value.report.repaired == 1
    assert json.loads(text_of("r00"))["new"] == 1


def test_a_description_in_the_config_survives_writing_and_undo(
    api: Api, warehouse: Warehouse, server: DevServer, text_of: TextOf
):
    text = '{"lr": {"desc": "rate", "value": 0.10}}'
    server.edit_run("ann", "trials", "r00", raw_config=text)
    request = BackfillRequest(
        "ann", "trials", compute=lambda run: {"lr": 2}, target="config", filters={"name": "r00"}
    )
    report = write(api, warehouse, request)
    assert json.loads(text_of("r00", "config"))["lr"] == {"desc": "rate", "value": 2}
    write(api, warehouse, BackfillRequest("ann", "trials", undo=report.backfill_id))
    assert json.loads(text_of("r00", "config"))["lr"] == {"desc": "rate", "value": 0.1}


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
    with pytest.raises(PermissionDenied, match="1 values of ann/trials were refused") as caught:
        execute_backfill(plan, api, warehouse)
    report = caught.value.report
    assert [value.run_id for value in report.failed] == ["r00"]
    assert [value.run_id for value in report.written] == ["r01"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda server: server.set_state("ann", "trials", "r00", "running"), "conflicts"),
        (lambda server: server.edit_run("ann", "trials", "r00", read_only=True), "failed"),
    ],
    ids=["running", "read-only"],
)
def test_a_run_that_may_not_be_written_to_after_a_wait_is_left_alone_and_the_others_are_written(
    api: Api, warehouse: Warehouse, server: DevServer, text_of: TextOf,
    change: Callable[[DevServer], None], told: str,
):  # fmt: skip
    limit = Responder.rate_limited(0.1)
    write_of_both = Matcher(operation="UpsertBucket")
    server.faults.add(Fault(write_of_both, limit, action=lambda: change(server)))
    plan = plan_backfill(REQUEST, api, warehouse)
    try:
        report = execute_backfill(plan, api, warehouse)
    except PermissionDenied as error:
        report = error.report
    assert [value.run_id for value in getattr(report, told)] == ["r00"]
    assert [value.run_id for value in report.written] == ["r01"]
    assert (text_of("r00"), json.loads(text_of("r01"))["best"]) == (FULL, 1)


def test_a_run_that_the_server_refuses_does_not_stop_a_safe_backfill(
    api: Api, warehouse: Warehouse, server: DevServer
):
    body = json.dumps({"errors": [{"message": "the summary of this run is too large"}]})
    refusal = Fault(Matcher(operation="UpsertBucket"), Responder(status=200, body=body))
    server.faults.add(refusal)
    with pytest.raises(InvalidRequest, match="too large; all others are written") as caught:
        write(api, warehouse, replace(REQUEST, safe=True))
    assert [value.run_id for value in caught.value.report.failed] == ["r00"]
    assert [value.run_id for value in caught.value.report.written] == ["r01"]


def test_members_of_others_are_put_back_though_the_run_logs_again(
    api: Api, warehouse: Warehouse, server: DevServer, text_of: TextOf
):
    def interfere() -> None:
        server.edit_run("ann", "trials", "r00", summary=FULL.replace("}", ', "new": 1}'))
        server.set_state("ann", "trials", "r00", "running")

    server.faults.add(Fault(Matcher(operation="UpsertBucket"), Responder(), action=interfere))
    assert write(api, warehouse).repaired == 1
    assert json.loads(text_of("r00"))["new"] == 1


@pytest.mark.parametrize("status", [400, 200])
def test_a_server_that_takes_one_write_in_a_request_is_written_to_and_watched(
    api: Api, warehouse: Warehouse, server: DevServer, text_of: TextOf, status: int
):
    too_many = Responder(status=status, body=TOO_COMPLEX)
    server.faults.add(Fault(Matcher(document="*run1: upsertBucket*"), too_many, times=None))
    meanwhile(server, nth=3, summary=FULL.replace("}", ', "new": 1}'))
    report = write(api, warehouse)
    assert (len(report.written), report.watched, report.repaired) == (2, True, 1)
    assert json.loads(text_of("r00"))["new"] == 1


@pytest.mark.parametrize("status", [400, 200])
def test_what_a_server_takes_in_a_request_is_found_out_once(
    api: Api, warehouse: Warehouse, server: DevServer, status: int, monkeypatch: pytest.MonkeyPatch
):
    """It takes six: the first 25 tell, the second are sent six at a time from the start."""
    monkeypatch.setattr("wb_ops.backfill.execute.BATCHES_AT_A_TIME", 1)
    names = [f"s{index:02}" for index in range(50)]
    server.seed_runs(
        {"entity": "ann", "project": "trials", "run_id": name, "summary": FULL} for name in names
    )
    too_many = Responder(status=status, body=TOO_COMPLEX)
    server.faults.add(Fault(Matcher(document="*run6: upsertBucket*"), too_many, times=None))
    report = write(api, warehouse, replace(REQUEST, filters={"name": {"$in": names}}))
    assert len(report.written) == 50
    # Is it the asking that is refused? No. Then 25 and 12 are too many.
    assert server.requests.operations().count("UpsertBucket") == 1 + 2 + 5 + 5


@pytest.mark.parametrize("status", [400, 200])
@pytest.mark.parametrize("at_fault", [0, 1], ids=["first", "second"])
def test_a_refusal_of_the_whole_because_of_one_run_is_told_of_that_run(
    api: Api, warehouse: Warehouse, server: DevServer, status: int, at_fault: int
):
    """The first write is all runs', the second asks whether the server answers, then r00's."""
    run_ids = ["r00", "r01", "r02"]
    server.seed_run("ann", "trials", "r02", summary=FULL)
    for nth in (1, 3 + at_fault):
        refusal = Responder(status=status, body=TOO_COMPLEX)
        server.faults.add(Fault(Matcher(operation="UpsertBucket", nth=nth), refusal))
    with pytest.raises(InvalidRequest, match="too complex; all others are written") as caught:
        write(api, warehouse, replace(REQUEST, filters={"name": {"$in": run_ids}}))
    assert [value.run_id for value in caught.value.report.failed] == [run_ids.pop(at_fault)]
    assert [value.run_id for value in caught.value.report.written] == run_ids


@pytest.mark.parametrize("status", [400, 413, 200])
def test_a_refusal_of_a_run_that_is_written_alone_stops_no_other(
    api: Api, warehouse: Warehouse, server: DevServer, status: int
):
    refusal = Responder(status=status, body=TOO_COMPLEX)
    server.faults.add(Fault(Matcher(operation="UpsertBucket", nth=1), refusal))
    with pytest.raises(InvalidRequest, match="all others are written") as caught:
        write(api, warehouse, replace(REQUEST, safe=True))
    assert [value.run_id for value in caught.value.report.failed] == ["r00"]
    assert [value.run_id for value in caught.value.report.written] == ["r01"]


@pytest.mark.parametrize("status", [400, 200])
def test_a_refusal_of_every_write_is_told_of_each_run(
    api: Api, warehouse: Warehouse, server: DevServer, status: int, text_of: TextOf
):
    every_write = Matcher(document="*summaryMetrics*", operation="UpsertBucket")
    refusal = Responder(status=status, body=TOO_COMPLEX)
    server.faults.add(Fault(every_write, refusal, times=None))
    with pytest.raises(InvalidRequest) as caught:
        write(api, warehouse)
    assert [value.run_id for value in caught.value.report.failed] == ["r00", "r01"]
    assert text_of("r00") == text_of("r01") == FULL


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
