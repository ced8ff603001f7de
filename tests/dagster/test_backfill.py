"""Computed values reach the summaries, once."""

from __future__ import annotations

import json
from pathlib import Path

import dagster as dg
import pytest

from wb_ops import InvalidRequest, Run
from wb_ops.backfill import best as best_of
from wb_ops.dagster import build_wandb_assets, created_days, late_data_condition, run_partitions
from wb_ops.devserver import Fault, Matcher, Responder

DRY_RUN = {"ops": {"ann__demo_best_metrics": {"config": {"dry_run": True}}}}


def best(bench) -> dict[str, float | None]:
    with bench.resources["wandb"].get_api() as api:
        return {run.id: run.summary.get("best_val_acc") for run in api.runs("ann/demo")}


def test_values_from_sql_are_written_after_the_export(bench):
    ran = bench.run(bench.export, bench.best_metrics())
    assert ran.materialized == {"runs", "history", "best_metrics"}
    assert best(bench) == {"r0": 0.4, "r1": 0.5, "r2": 0.6}
    shown = ran.metadata("best_metrics")
    assert shown["wandb/values_written"] == 3
    assert "| best_val_acc |  | 0.4 |" in shown["wandb/values"]


def test_what_is_there_already_is_not_written_again(bench):
    bench.run(bench.export, bench.best_metrics())
    bench.server.requests.clear()
    shown = bench.run(bench.export, bench.best_metrics()).metadata("best_metrics")
    assert shown["wandb/values_unchanged"] == 3
    assert shown["wandb/values_written"] == 0
    assert not any("mutation" in record.document for record in graphql(bench))


def test_values_come_from_a_function_too(bench):
    def steps(run: Run) -> dict[str, int]:
        return {"steps": run.history_table().num_rows}

    bench.run(bench.export)
    shown = bench.run(bench.best_metrics(compute=steps)).metadata("best_metrics")
    assert shown["wandb/values_written"] == 3


def test_a_recipe_is_one_line(bench):
    bench.run(bench.export)
    shown = bench.run(bench.best_metrics(compute=best_of("val_acc"))).metadata("best_metrics")
    assert shown["wandb/values_written"] == 6
    assert best(bench) == {"r0": 0.4, "r1": 0.5, "r2": 0.6}


def test_values_come_from_a_file_too(bench, tmp_path: Path):
    labels = tmp_path / "labels.csv"
    labels.write_text("run_id,best_val_acc\nr0,0.25\nr2,0.75\n")
    bench.run(bench.export)
    assert bench.run(bench.best_metrics(file=labels)).success
    assert best(bench) == {"r0": 0.25, "r1": None, "r2": 0.75}


def test_tags_can_be_the_target(bench):
    bench.run(bench.export)
    good = bench.best_metrics(
        sql="select run_id, max(val_acc) > 0.45 as good from history group by run_id",
        target="tags",
    )
    assert bench.run(good).success
    with bench.resources["wandb"].get_api() as api:
        assert [run.id for run in api.runs("ann/demo") if "good" in run.tags] == ["r2", "r1"]


def test_more_changes_than_allowed_fail_once_and_nothing_is_written(bench):
    bench.run(bench.export)
    ran = bench.run(bench.best_metrics(max_changes=2))
    assert ran.waits == []
    assert ran.shown["wandb/error"] == "InvalidRequest"
    assert best(bench) == {"r0": None, "r1": None, "r2": None}


def test_the_policy_decides_what_is_replaced(bench):
    bench.run(bench.export)
    bench.server.edit_run("ann", "demo", "r0", summary={"best_val_acc": 0.125})
    assert bench.run(bench.best_metrics(policy="only_missing", safe=True)).success
    assert best(bench) == {"r0": 0.125, "r1": 0.5, "r2": 0.6}


def test_runs_that_log_or_whose_history_is_old_are_left_alone_unless_asked_for(bench):
    bench.server.seed_run("ann", "demo", "open", state="running", history=[{"val_acc": 0.7}])
    bench.run(bench.export)
    bench.server.append_history("ann", "demo", "r0", [{"_step": 9, "val_acc": 0.9}])
    assert bench.run(bench.best_metrics()).metadata("best_metrics")["wandb/values_skipped"] == 2
    assert best(bench) == {"r0": None, "r1": 0.5, "r2": 0.6, "open": None}
    both = bench.best_metrics(include_incomplete=True, include_running=True)
    assert bench.run(both).metadata("best_metrics")["wandb/values_skipped"] == 0
    assert best(bench) == {"r0": 0.4, "r1": 0.5, "r2": 0.6, "open": 0.7}


def test_a_day_writes_to_the_runs_created_on_it_and_a_range_says_it_of_each_day(bench):
    days = created_days("2026-03-01")
    history = [{"_step": 0, "val_acc": 0.7}]
    for run_id, day in (("a", 2), ("b", 3), ("c", 3)):
        bench.server.seed_run(
            "ann", "demo", run_id, created_at=f"2026-03-{day:02}T12:00:00", history=history
        )
    assets = [
        build_wandb_assets(entity="ann", project="demo", partitions_def=days, retry_policy=None),
        bench.best_metrics(partitions_def=days),
    ]
    assert assets[1].backfill_policy == dg.BackfillPolicy.single_run()
    bench.run(assets[0])
    ran = bench.run(*assets, partition_key="2026-03-02")
    assert best(bench) | {"r0": None} == {
        "r0": None, "r1": None, "r2": None, "a": 0.7, "b": None, "c": None
    }  # fmt: skip
    assert ran.metadata("best_metrics")["wandb/values_skipped"] == 0
    span = {
        "dagster/asset_partition_range_start": "2026-03-01",
        "dagster/asset_partition_range_end": "2026-03-03",
    }
    ran = bench.run(*assets, tags=span)
    written = {
        event.partition: event.materialization.metadata["wandb/partition_values_written"].value
        for event in ran.result.get_asset_materialization_events()
        if event.asset_key.path[-1] == "best_metrics"
    }
    assert written == {"2026-03-01": 0, "2026-03-02": 0, "2026-03-03": 2}
    assert best(bench)["r0"] is None


def test_a_run_partition_writes_to_its_run_and_a_dry_run_is_seen_on_it(bench):
    runs = run_partitions("ann", "demo")
    bench.run(bench.export)
    bench.instance.add_dynamic_partitions(runs.name, ["r1"])
    asset = bench.best_metrics(partitions_def=runs, filters={"state": "finished"})
    ran = bench.run(asset, run_config=DRY_RUN, partition_key="r1")
    (event,) = [event for event in ran.result.all_events if event.is_asset_observation]
    assert event.partition == "r1"
    assert bench.run(asset, partition_key="r1").success
    assert best(bench) == {"r0": None, "r1": 0.5, "r2": None}


def test_a_run_that_the_warehouse_does_not_hold_yet_is_told_of_too(bench):
    runs = run_partitions("ann", "demo")
    bench.run(bench.export)
    for run_id, state in (("new", "finished"), ("open", "running")):
        bench.server.seed_run("ann", "demo", run_id, state=state, history=[{"val_acc": 0.7}])
    bench.instance.add_dynamic_partitions(runs.name, ["new", "open"])
    asset = bench.best_metrics(compute=best_of("val_acc"), partitions_def=runs)
    new = bench.run(asset, partition_key="new").metadata("best_metrics")
    assert new["wandb/partition_values_written"] == new["wandb/values_written"] == 2
    still_open = bench.run(asset, partition_key="open").metadata("best_metrics")
    assert still_open["wandb/values_skipped"] == 2
    assert still_open["wandb/partition_values_written"] == 0


def test_what_a_file_says_of_other_partitions_is_not_told_of(bench, tmp_path: Path):
    labels = tmp_path / "labels.csv"
    labels.write_text("run_id,best_val_acc\nr0,0.25\nr1,0.5\nelsewhere,0.75\n")
    runs = run_partitions("ann", "demo")
    bench.run(bench.export)
    bench.instance.add_dynamic_partitions(runs.name, ["r0"])
    chosen = {"file": labels, "partitions_def": runs}
    shown = bench.run(bench.best_metrics(**chosen), partition_key="r0").metadata("best_metrics")
    assert (shown["wandb/values_written"], shown["wandb/values_skipped"]) == (1, 0)
    none_match = bench.best_metrics(**chosen, filters={"state": "crashed"})
    shown = bench.run(none_match, partition_key="r0").metadata("best_metrics")
    assert (shown["wandb/values_written"], shown["wandb/values_skipped"]) == (0, 1)


def test_resources_of_its_own_and_what_automates_it(bench):
    condition = late_data_condition()
    asset = bench.best_metrics(
        **bench.resources, automation_condition=condition, deps=[dg.AssetKey("gate")], pool="slow"
    )
    (spec,) = asset.specs
    assert spec.automation_condition == condition
    assert dg.AssetKey("gate") in {dependency.asset_key for dependency in spec.deps}
    assert asset.op.pool == "slow"
    bench.run(bench.export)
    assert dg.materialize([asset], instance=bench.instance).success
    assert best(bench)["r0"] == 0.4


def test_what_is_not_known_is_refused_when_it_loads(bench):
    with pytest.raises(InvalidRequest, match="exactly one of"):
        bench.best_metrics(compute=best_of("val_acc"), sql="select 1")
    with pytest.raises(dg.DagsterInvalidDefinitionError, match="no option polcy"):
        bench.best_metrics(polcy="only_missing")
    with pytest.raises(dg.DagsterInvalidDefinitionError, match="no option filtres"):
        build_wandb_assets(entity="ann", project="demo", filtres={})


def test_a_dry_run_shows_the_plan_and_writes_nothing(bench):
    bench.run(bench.export)
    ran = bench.run(bench.best_metrics(), run_config=DRY_RUN)
    assert ran.success
    assert ran.materialized == set()
    assert best(bench) == {"r0": None, "r1": None, "r2": None}
    (event,) = [event for event in ran.result.all_events if event.is_asset_observation]
    observed = event.asset_observation_data.asset_observation.metadata
    assert json.dumps(observed["wandb/counts"].value) == '{"set": 3}'


def test_the_written_values_are_in_the_next_export(bench):
    bench.run(bench.export, bench.best_metrics())
    bench.run(bench.export)
    rows = bench.rows("select summary->>'best_val_acc' as best from runs order by run_id")
    assert [row["best"] for row in rows] == ["0.4", "0.5", "0.6"]


def test_values_that_the_server_refuses_fail_the_step_after_the_others_are_written(bench):
    bench.run(bench.export)
    closing = Fault(
        Matcher(operation="UpsertBucket"),
        Responder(),
        action=lambda: bench.server.edit_run("ann", "demo", "r1", read_only=True),
    )
    bench.server.faults.add(closing)
    ran = bench.run(bench.best_metrics())
    assert not ran.success
    assert ran.waits == []
    assert ran.tags["dagster/retry_on_asset_or_op_failure"] == "false"
    assert best(bench) == {"r0": 0.4, "r1": None, "r2": 0.6}


def test_an_error_that_may_pass_after_the_plan_is_left_to_the_retry_policy(bench):
    bench.run(bench.export)
    reading_before_the_write = Matcher(operation="Runs", nth=2)
    bench.server.faults.add(Fault(reading_before_the_write, Responder.error(502)))
    ran = bench.run(bench.best_metrics())
    assert (ran.success, len(ran.waits)) == (True, 1)
    assert best(bench) == {"r0": 0.4, "r1": 0.5, "r2": 0.6}


def graphql(bench) -> list:
    return [record for record in bench.server.requests if record.document]
