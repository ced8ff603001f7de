"""A run that changes late is seen, and only its day is materialized again."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest

from wb_ops.dagster import (
    build_changes_schedule,
    build_wandb_assets,
    build_wandb_changes,
    created_days,
    late_data_condition,
)
from wb_ops.devserver import Responder

HISTORY = [{"_step": step, "val_acc": step / 10} for step in range(4)]


def today() -> datetime:
    return datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


def day(ago: int) -> str:
    return f"{today() - timedelta(days=ago):%Y-%m-%d}"


class Watched:
    """A project with one run a day, observed and automated as a daemon does it."""

    def __init__(
        self,
        bench,
        condition: dg.AutomationCondition,
        partitions_def: dg.TimeWindowPartitionsDefinition | None = None,
        lookback: timedelta = timedelta(days=7),
        **chosen: object,
    ) -> None:
        self.bench = bench
        for run_id in ("r0", "r1", "r2"):
            bench.server.delete_run("ann", "demo", run_id)
        for ago in range(5):
            self.seed(f"ago{ago}", ago)
        windows = partitions_def or created_days(day(30))
        project = {"entity": "ann", "project": "demo", "partitions_def": windows}
        self.changes = build_wandb_changes(**project, **chosen, lookback=lookback)
        self.assets = build_wandb_assets(
            **project, deps=[self.changes], automation_condition=condition, retry_policy=None
        )
        job = dg.define_asset_job("observe", [self.changes])
        self.defs = dg.Definitions(
            assets=[self.changes, self.assets], jobs=[job], resources=bench.resources
        )
        self.cursor = None

    def seed(self, run_id: str, ago: int, **fields: object) -> None:
        moment = today() - timedelta(days=ago)
        self.bench.server.seed_run(
            "ann", "demo", run_id, created_at=moment, history=HISTORY, **fields
        )

    def observe(self) -> set[str]:
        """Observe; returns the days that have changed."""
        ran = self.defs.resolve_job_def("observe").execute_in_process(instance=self.bench.instance)
        events = [event for event in ran.all_events if event.is_asset_observation]
        return {event.asset_observation_data.asset_observation.partition for event in events}

    def evaluate(
        self, *, succeeds: bool = True, at: datetime | None = None
    ) -> set[tuple[str, str | None]]:
        """What the daemon would launch now, or at that time; it is materialized."""
        result = dg.evaluate_automation_conditions(
            self.defs, self.bench.instance, evaluation_time=at, cursor=self.cursor
        )
        self.cursor = result.cursor
        requested = {
            (key.path[-1], partition)
            for key in self.assets.keys
            for partition in result.get_requested_partitions(key)
        }
        for partition in {partition for _, partition in requested}:
            assert self.bench.run(self.assets, partition_key=partition).success is succeeds
        return requested


@pytest.fixture
def watched(bench) -> Watched:
    watched = Watched(bench, late_data_condition(timedelta(days=7)))
    watched.observe()
    watched.evaluate()
    watched.evaluate()
    return watched


def both(*days: str) -> set[tuple[str, str]]:
    return {(table, one) for one in days for table in ("runs", "history")}


def test_only_days_that_changed_are_observed(watched: Watched):
    assert watched.observe() == set()
    watched.seed("another", 3)
    assert watched.observe() == {day(3)}
    assert watched.observe() == set()


def test_a_late_edit_materializes_its_day_only(watched: Watched):
    assert watched.evaluate() == set()
    watched.bench.server.edit_run("ann", "demo", "ago3", summary={"val_acc": 0.99})
    watched.observe()
    assert watched.evaluate() == both(day(3))
    assert watched.evaluate() == set()
    rows = watched.bench.rows("select summary->>'val_acc' as acc from runs where run_id = 'ago3'")
    assert rows == [{"acc": "0.99"}]


def test_a_late_day_whose_export_failed_is_exported_again(watched: Watched):
    hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
    minutes = [hour + timedelta(minutes=after) for after in (5, 10, 65, 70, 130)]
    watched.bench.server.edit_run("ann", "demo", "ago3", summary={"val_acc": 0.99})
    watched.observe()
    watched.bench.fail(Responder.error(403), times=2)
    assert watched.evaluate(at=minutes[0], succeeds=False) == both(day(3))
    assert watched.evaluate(at=minutes[1]) == set()
    # At each hour, however often it fails; and not once more after it has succeeded.
    assert watched.evaluate(at=minutes[2], succeeds=False) == both(day(3))
    assert watched.evaluate(at=minutes[3]) == set()
    assert watched.evaluate(at=minutes[4]) == both(day(3))
    assert watched.evaluate(at=minutes[4] + timedelta(hours=1)) == set()
    rows = watched.bench.rows("select summary->>'val_acc' as acc from runs where run_id = 'ago3'")
    assert rows == [{"acc": "0.99"}]


def test_a_run_that_still_writes_counts_once_it_ends(watched: Watched):
    watched.seed("long", 2, state="running")
    assert watched.observe() == set()
    watched.bench.server.finish_run("ann", "demo", "long")
    assert watched.observe() == {day(2)}


def test_states_that_are_not_exported_are_not_observed(bench):
    watched = Watched(bench, late_data_condition(timedelta(days=7)), states=["finished"])
    watched.observe()
    watched.seed("broke", 2, state="crashed")
    assert watched.observe() == set()
    watched.seed("whole", 3)
    assert watched.observe() == {day(3)}


def test_runs_that_the_filters_leave_out_are_not_observed(bench):
    watched = Watched(
        bench, late_data_condition(timedelta(days=7)), filters={"config.lr.value": 0.5}
    )
    watched.observe()
    watched.seed("other", 2, config={"lr": 0.1})
    assert watched.observe() == set()
    watched.seed("ours", 3, config={"lr": 0.5})
    assert watched.observe() == {day(3)}


def test_a_deletion_is_a_change(watched: Watched):
    watched.bench.server.delete_run("ann", "demo", "ago3")
    assert watched.observe() == {day(3)}
    assert watched.observe() == set()


def test_what_is_older_than_the_lookback_is_not_asked_for(watched: Watched):
    watched.seed("old", 20)
    assert watched.observe() == set()


WEEKS = dg.WeeklyPartitionsDefinition(start_date=day(60), end_offset=1)
MONTHS = dg.MonthlyPartitionsDefinition(start_date=day(200), end_offset=1)


@pytest.mark.parametrize(
    ("partitions_def", "days", "apart", "caught"),
    [(created_days(day(30)), 7, 1, 7), (WEEKS, 14, 7, 2), (MONTHS, 62, 28, 2)],
    ids=["days", "weeks", "months"],
)
def test_every_edit_that_is_observed_is_launched_that_of_the_oldest_partition_too(
    bench, partitions_def, days: int, apart: int, caught: int
):
    lookback = timedelta(days=days)
    watched = Watched(bench, late_data_condition(lookback), partitions_def, lookback)
    watched.observe()
    watched.evaluate()
    watched.evaluate()
    for ago in range(0, days + 2 * apart, apart):
        watched.seed(f"late{ago}", ago)
    seen = watched.observe()
    assert len(seen) == caught
    assert watched.evaluate() == both(*seen)


def test_a_lookback_in_which_no_partition_fits_is_refused():
    with pytest.raises(dg.DagsterInvalidDefinitionError, match=r"timedelta\(days=31\)"):
        build_wandb_changes(entity="ann", project="demo", partitions_def=MONTHS)


def test_eager_alone_would_miss_it(bench):
    watched = Watched(bench, dg.AutomationCondition.eager())
    watched.observe()
    watched.evaluate()
    watched.bench.server.edit_run("ann", "demo", "ago3", summary={"val_acc": 0.99})
    watched.observe()
    assert watched.evaluate() == set()


def test_an_observation_costs_one_request(watched: Watched):
    watched.bench.server.requests.clear()
    watched.observe()
    assert watched.bench.server.requests.operations() == ["Runs"]


def scheduled(watched: Watched, policy: dg.RetryPolicy, **options: object):
    """What the schedule launches."""
    schedule = build_changes_schedule(watched.changes, retry_policy=policy)
    defs = dg.Definitions(
        assets=[watched.changes], schedules=[schedule], resources=watched.bench.resources
    )
    return defs.resolve_job_def(schedule.job_name).execute_in_process(
        instance=watched.bench.instance, raise_on_error=False, **options
    )


def test_an_observation_is_tried_again_as_often_as_its_policy_says(watched: Watched):
    watched.bench.fail(Responder.error(502), times=2)
    ran = scheduled(watched, dg.RetryPolicy(max_retries=2, delay=0.01))
    assert ran.success
    assert sum(event.is_step_up_for_retry for event in ran.all_events) == 2


def test_an_observation_whose_key_is_refused_is_tried_once_and_not_run_again(watched: Watched):
    watched.bench.fail(Responder.error(401), times=1)
    ran = scheduled(watched, dg.RetryPolicy(max_retries=2, delay=0.01))
    assert not ran.success
    assert not any(event.is_step_up_for_retry for event in ran.all_events)
    tags = watched.bench.instance.get_run_by_id(ran.run_id).tags
    assert tags["dagster/retry_on_asset_or_op_failure"] == "false"


def test_an_observation_is_tagged_with_the_pool(watched: Watched):
    tags = watched.defs.resolve_job_def("observe").nodes[0].definition.tags
    assert tags["dagster/concurrency_key"] == "wandb_api"
