"""A partition is a day on which runs were created, or one run; a range is one export."""

from __future__ import annotations

import dagster as dg
import pytest

from wb_ops.dagster import build_wandb_assets, created_days, run_partitions

DAYS = created_days("2026-03-01")
HISTORY = [{"_step": step, "val_acc": step / 10} for step in range(4)]


def seed_day(bench, day: int, *run_ids: str) -> None:
    for run_id in run_ids:
        bench.server.seed_run(
            "ann", "demo", run_id, created_at=f"2026-03-{day:02}T12:00:00", history=HISTORY
        )


def export(partitions_def: dg.PartitionsDefinition) -> dg.AssetsDefinition:
    return build_wandb_assets(
        entity="ann", project="demo", partitions_def=partitions_def, retry_policy=None
    )


def by_partition(ran, table: str) -> dict[str, dict]:
    events = ran.result.get_asset_materialization_events()
    return {
        event.partition: {key: one.value for key, one in event.materialization.metadata.items()}
        for event in events
        if event.asset_key.path[-1] == table
    }


def counts(ran, table: str) -> dict[str, int]:
    shown = by_partition(ran, table)
    return {key: one["dagster/partition_row_count"] for key, one in shown.items()}


def test_a_day_brings_the_runs_created_on_it_and_no_others(bench):
    seed_day(bench, 2, "late")
    seed_day(bench, 3, "a", "b")
    ran = bench.run(export(DAYS), partition_key="2026-03-03")
    assert ran.success
    assert [row["run_id"] for row in bench.rows("select run_id from runs order by 1")] == ["a", "b"]
    shown = by_partition(ran, "history")["2026-03-03"]
    assert shown["dagster/partition_row_count"] == 8
    assert shown["wandb/partition_statuses"] == {"complete": 2}


def test_a_range_of_30_days_is_one_run_with_metadata_for_each_day(bench):
    for day in range(1, 31):
        seed_day(bench, day, *(f"r{day}-{number}" for number in range(day % 3)))
    assets = export(DAYS)
    assert assets.backfill_policy == dg.BackfillPolicy.single_run()
    bench.server.requests.clear()
    ran = bench.run(assets, tags=span("2026-03-01", "2026-03-30"))
    assert ran.success
    for table, rows in (("runs", 1), ("history", 4)):
        assert counts(ran, table) == {f"2026-03-{day:02}": rows * (day % 3) for day in range(1, 31)}
    assert bench.server.requests.operations().count("Runs") == 2


def span(start: str, end: str) -> dict[str, str]:
    return {"dagster/asset_partition_range_start": start, "dagster/asset_partition_range_end": end}


def test_a_partition_twice_is_the_same_and_takes_late_runs_in(bench):
    seed_day(bench, 3, "a")
    bench.run(export(DAYS), partition_key="2026-03-03")
    seed_day(bench, 3, "b")
    bench.server.edit_run("ann", "demo", "a", summary={"val_acc": 0.9})
    for _ in range(2):
        ran = bench.run(export(DAYS), partition_key="2026-03-03")
        assert counts(ran, "runs")["2026-03-03"] == 2
    rows = bench.rows("select summary->>'val_acc' as acc from runs where run_id = 'a'")
    assert rows == [{"acc": "0.9"}]


def test_a_day_marks_its_runs_that_were_deleted_and_no_others(bench):
    seed_day(bench, 2, "before")
    seed_day(bench, 3, "a", "b")
    for day in ("2026-03-02", "2026-03-03"):
        bench.run(export(DAYS), partition_key=day)
    for run_id in ("a", "before"):
        bench.server.delete_run("ann", "demo", run_id)
    ran = bench.run(export(DAYS), partition_key="2026-03-03")
    assert ran.metadata("runs")["wandb/runs_deleted"] == 1
    gone = bench.rows("select run_id from runs where deleted_at is not null")
    assert gone == [{"run_id": "a"}]


def test_a_partition_can_be_one_run(bench):
    runs = run_partitions("ann", "demo")
    bench.instance.add_dynamic_partitions(runs.name, ["r0", "it's"])
    seed_day(bench, 3, "it's")
    ran = bench.run(export(runs), partition_key="it's")
    assert ran.success
    assert bench.rows("select run_id from runs") == [{"run_id": "it's"}]
    assert counts(ran, "history")["it's"] == 4


def test_a_late_edit_of_a_run_partition_is_seen(bench):
    runs = run_partitions("ann", "demo")
    bench.instance.add_dynamic_partitions(runs.name, ["r0"])
    bench.run(export(runs), partition_key="r0")
    bench.server.edit_run("ann", "demo", "r0", summary={"val_acc": 0.9})
    bench.run(export(runs), partition_key="r0")
    assert bench.rows("select summary->>'val_acc' as acc from runs") == [{"acc": "0.9"}]


def test_several_run_partitions_are_one_export(bench):
    runs = run_partitions("ann", "demo")
    bench.instance.add_dynamic_partitions(runs.name, ["r0", "r1", "r2"])
    bench.server.requests.clear()
    ran = bench.run(export(runs), tags=span("r0", "r2"))
    assert counts(ran, "history") == {"r0": 5, "r1": 6, "r2": 7}
    assert export(runs).backfill_policy.max_partitions_per_run == 50


def test_launches_of_run_partitions_leave_no_watermarks_behind(bench):
    runs = run_partitions("ann", "demo")
    bench.instance.add_dynamic_partitions(runs.name, ["r0", "r1"])
    for run_id in ("r0", "r1"):
        assert bench.run(export(runs), partition_key=run_id).success
    assert bench.rows("select scope from _wb_state where watermark is not null") == []
    assert len(bench.rows("select scope from _wb_state")) <= 1


def test_a_run_partition_marks_its_run_as_deleted(bench):
    runs = run_partitions("ann", "demo")
    bench.instance.add_dynamic_partitions(runs.name, ["r0"])
    bench.run(export(runs), partition_key="r0")
    bench.server.delete_run("ann", "demo", "r0")
    assert bench.run(export(runs), partition_key="r0").metadata("runs")["wandb/runs_deleted"] == 1
    (row,) = bench.rows("select deleted_at from runs")
    assert row["deleted_at"] is not None


def test_a_run_that_is_gone_is_an_empty_partition(bench):
    runs = run_partitions("ann", "demo")
    bench.instance.add_dynamic_partitions(runs.name, ["gone"])
    ran = bench.run(export(runs), partition_key="gone")
    assert counts(ran, "runs")["gone"] == 0


@pytest.mark.parametrize("hour", [0, 23])
def test_days_are_utc_days(bench, hour: int):
    bench.server.seed_run(
        "ann", "demo", "edge", created_at=f"2026-03-03T{hour:02}:59:59", history=HISTORY
    )
    ran = bench.run(export(DAYS), partition_key="2026-03-03")
    assert counts(ran, "runs")["2026-03-03"] == 1


def test_weeks_and_other_windows_work_too(bench):
    seed_day(bench, 3, "a")
    weeks = dg.WeeklyPartitionsDefinition(start_date="2026-02-01")
    ran = bench.run(export(weeks), partition_key="2026-03-01")
    assert counts(ran, "runs")["2026-03-01"] == 1
