"""The sensor launches once for each end of a run, and costs one request a tick."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest

from wb_ops.dagster import (
    build_finished_runs_sensor,
    build_wandb_assets,
    created_days,
    run_partitions,
    sensors,
)
from wb_ops.dagster.sensors import MAX_PAGE
from wb_ops.devserver import Fault, Matcher, Responder
from wb_ops.errors import AuthenticationFailed, NotFound, RequestTimeout

START = datetime(2026, 3, 1, tzinfo=UTC)
RUNS = run_partitions("ann", "demo")


class Ticks:
    """Ticks of one sensor, with the cursor carried on as the daemon does."""

    def __init__(self, bench, partitions_def=RUNS, project="demo", **options) -> None:
        self.bench = bench
        self.cursor: str | None = None
        target = build_wandb_assets(entity="ann", project=project, partitions_def=partitions_def)
        self.sensor = build_finished_runs_sensor(
            entity="ann", project=project, target=target, partitions_def=partitions_def,
            **{"start_at": START, **options},
        )  # fmt: skip

    def tick(self) -> dg.SensorResult | dg.SkipReason:
        with dg.build_sensor_context(
            instance=self.bench.instance, cursor=self.cursor, resources=self.bench.resources
        ) as context:
            result = self.sensor(context)
            # Dagster takes it from the one or the other, and refuses both.
            self.cursor = result.cursor if isinstance(result, dg.SensorResult) else context.cursor
        return result

    def launched(self) -> list[str | None]:
        result = self.tick()
        if isinstance(result, dg.SkipReason):
            return []
        return [request.partition_key for request in result.run_requests]


def seed(bench, run_id: str, minute: int, **fields) -> None:
    moment = START + timedelta(minutes=minute)
    bench.server.seed_run(
        "ann", "demo", run_id, **{"created_at": moment, "heartbeat_at": moment, **fields}
    )


@pytest.fixture(autouse=True)
def empty(bench) -> None:
    for run_id in ("r0", "r1"):
        bench.server.delete_run("ann", "demo", run_id)
    bench.server.edit_run("ann", "demo", "r2", heartbeat_at=START - timedelta(days=1))


def test_each_ended_run_is_launched_once_as_its_own_partition(bench):
    seed(bench, "b", 2)
    seed(bench, "a", 1)
    seed(bench, "writes", 3, state="running")
    ticks = Ticks(bench)
    result = ticks.tick()
    assert [request.partition_key for request in result.run_requests] == ["a", "b"]
    assert result.run_requests[0].tags == {"wandb/run_id": "a", "wandb/state": "finished"}
    (added,) = result.dynamic_partitions_requests
    assert (added.partitions_def_name, list(added.partition_keys)) == (RUNS.name, ["a", "b"])
    assert ticks.launched() == []


def test_runs_that_end_at_the_same_moment_are_neither_lost_nor_doubled(bench):
    seed(bench, "a", 1)
    ticks = Ticks(bench)
    assert ticks.launched() == ["a"]
    seed(bench, "b", 1)
    assert ticks.launched() == ["b"]


def test_a_crash_that_is_noticed_late_is_not_lost(bench):
    seed(bench, "crash", 1, state="running")
    seed(bench, "later", 8)
    ticks = Ticks(bench)
    assert ticks.launched() == ["later"]
    bench.server.edit_run(
        "ann", "demo", "crash", state="crashed", heartbeat_at=START + timedelta(minutes=1)
    )
    assert ticks.launched() == ["crash"]


def test_a_run_that_was_resumed_and_ended_again_is_launched_again(bench):
    seed(bench, "a", 1)
    ticks = Ticks(bench)
    first = ticks.tick().run_requests[0]
    bench.server.edit_run("ann", "demo", "a", heartbeat_at=START + timedelta(minutes=50))
    second = ticks.tick().run_requests[0]
    assert first.partition_key == second.partition_key
    assert first.run_key != second.run_key


def test_a_tick_is_capped_and_the_next_ones_bring_the_rest(bench):
    for minute in range(5):
        seed(bench, f"r-{minute}", minute)
    ticks = Ticks(bench, max_runs_per_tick=2)
    assert [ticks.launched() for _ in range(4)] == [["r-0", "r-1"], ["r-2", "r-3"], ["r-4"], []]


def test_a_tick_costs_one_request(bench):
    for minute in range(5):
        seed(bench, f"r-{minute}", minute)
    ticks = Ticks(bench, max_runs_per_tick=2)
    for _ in range(3):
        bench.server.requests.clear()
        ticks.tick()
        assert bench.server.requests.operations() == ["Runs"]


def test_by_day_there_is_one_launch_for_each_day_of_creation(bench):
    seed(bench, "a", 1, created_at=START)
    seed(bench, "b", 2, created_at=START)
    seed(bench, "long", 3, created_at=START - timedelta(days=3))
    seed(bench, "before", 4, created_at=START - timedelta(days=300))
    ticks = Ticks(bench, created_days("2026-02-01"))
    assert ticks.launched() == ["2026-03-01", "2026-02-26"]
    assert ticks.launched() == []


def test_without_partitions_there_is_one_launch_a_tick(bench):
    seed(bench, "a", 1)
    seed(bench, "b", 2)
    result = Ticks(bench, None).tick()
    (request,) = result.run_requests
    assert request.partition_key is None
    assert request.tags == {"wandb/runs": "2"}


def test_what_passes_skips_the_tick_and_keeps_the_cursor(bench):
    seed(bench, "a", 1)
    bench.fail(Responder.error(502))
    ticks = Ticks(bench)
    skipped = ticks.tick()
    assert isinstance(skipped, dg.SkipReason)
    assert "The next tick asks again" in skipped.skip_message
    assert ticks.launched() == ["a"]


def test_a_silent_server_is_not_asked_page_by_page(bench):
    bench.fail(Responder.slow(1.5), times=None)
    with bench.resources["wandb"].open_api(0.6) as api:
        with pytest.raises(RequestTimeout):
            list(api.source("ann/demo").iter_nodes(page_size=1000))
        # Each is given up after a third of the budget, and none begins after its end.
        assert 1 <= api.transport.traffic.requests <= 3


def test_a_tick_at_a_silent_server_ends_with_its_budget(bench, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sensors, "TICK_BUDGET_S", 0.6)
    seed(bench, "a", 1)
    # It would answer in the end, and the resource would wait for it.
    bench.wandb = {"max_attempts": 50, "timeout_s": 60.0}
    bench.fail(Responder.slow(1.5), times=None)
    ticks = Ticks(bench)
    skipped = ticks.tick()
    assert isinstance(skipped, dg.SkipReason)
    assert "The next tick asks again" in skipped.skip_message
    bench.server.faults.clear()
    monkeypatch.undo()
    assert ticks.launched() == ["a"]


def test_what_was_read_before_the_server_broke_off_is_launched(bench):
    for minute, run_id in enumerate("abc"):
        seed(bench, run_id, minute)
    bench.fail(Responder.error(500))
    bench.server.faults.add(
        Fault(Matcher(operation="Runs", nth=3), Responder.rate_limited(0.01), times=1)
    )
    ticks = Ticks(bench, max_runs_per_tick=2)
    assert [ticks.launched() for _ in range(3)] == [["a"], ["b", "c"], []]


def test_every_run_gets_its_turn_where_very_many_end_in_one_moment(bench):
    for number in range(520):
        seed(bench, f"tie-{number}", 1)
    seed(bench, "later", 2)
    ticks = Ticks(bench, max_runs_per_tick=260)
    launched = [ticks.launched() for _ in range(4)]
    assert [len(some) for some in launched] == [260, 260, 1, 0]
    assert launched[2] == ["later"]


def test_more_than_a_page_of_runs_that_end_in_one_moment_do_not_stop_it(bench):
    moment = START + timedelta(minutes=1)
    bench.server.seed_runs(
        {"entity": "ann", "project": "demo", "run_id": f"tie-{number:04}", "state": "finished",
         "created_at": moment, "heartbeat_at": moment}
        for number in range(MAX_PAGE + 10)
    )  # fmt: skip
    seed(bench, "later", 2)
    ticks = Ticks(bench, max_runs_per_tick=400)
    launched = [ticks.launched() for _ in range(4)]
    assert [len(some) for some in launched] == [400, 400, 211, 0]
    assert len({run_id for some in launched for run_id in some}) == MAX_PAGE + 11
    assert launched[2][-1] == "later"


def test_while_the_server_asks_to_wait_no_tick_asks_it(bench):
    seed(bench, "a", 1)
    bench.fail(Responder.rate_limited(600))
    ticks = Ticks(bench)
    for _ in range(3):
        assert isinstance(ticks.tick(), dg.SkipReason)
    assert len(bench.server.requests) == 1
    assert json.loads(ticks.cursor) == {"at": START.isoformat(), "seen": {}}


@pytest.mark.parametrize("cursor", [None, "nonsense"])
@pytest.mark.parametrize("first", [Responder.error(502), None], ids=["silent", "nothing new"])
def test_runs_that_end_while_nobody_looks_are_launched_however_long_that_is(
    bench, monkeypatch: pytest.MonkeyPatch, first, cursor
):
    if first is not None:
        bench.fail(first)
    ticks = Ticks(bench, start_at=None)
    ticks.cursor = cursor
    assert isinstance(ticks.tick(), dg.SkipReason)
    seed(bench, "meanwhile", 0, heartbeat_at=datetime.now(UTC) + timedelta(minutes=1))
    monkeypatch.setattr(sensors, "datetime", TwoHoursLater)
    assert ticks.launched() == ["meanwhile"]


class TwoHoursLater(datetime):
    @classmethod
    def now(cls, tz=None):
        return super().now(tz) + timedelta(hours=2)


def test_what_does_not_pass_fails_the_tick(bench):
    with pytest.raises(NotFound):
        Ticks(bench, project="no-such-project").tick()
    bench.wandb = {"api_key": "wrong" * 10}
    with pytest.raises(AuthenticationFailed):
        Ticks(bench).tick()


@pytest.mark.parametrize("cursor", ["nonsense", "{}", '{"at": 1, "seen": []}'])
def test_a_cursor_that_cannot_be_read_starts_again(bench, cursor: str):
    seed(bench, "a", 1)
    ticks = Ticks(bench)
    ticks.cursor = cursor
    assert ticks.launched() == ["a"]


def test_the_cursor_is_short(bench):
    for minute in range(0, 300, 10):
        seed(bench, f"r-{minute}", minute)
    ticks = Ticks(bench)
    assert len(ticks.launched()) == 30
    cursor = json.loads(ticks.cursor)
    assert cursor["at"] == "2026-03-01T04:20:00+00:00"
    assert set(cursor["seen"]) == {"r-260", "r-270", "r-280", "r-290"}


def test_by_default_history_is_not_launched(bench):
    seed(bench, "old", 1)
    seed(bench, "new", 2, heartbeat_at=datetime.now(UTC))
    assert Ticks(bench, start_at=None).launched() == ["new"]


def test_it_is_off_until_it_is_switched_on(bench):
    sensor = Ticks(bench).sensor
    assert sensor.default_status is dg.DefaultSensorStatus.STOPPED
    assert sensor.name == "ann__demo__finished_runs"
    assert sensor.minimum_interval_seconds == 60
