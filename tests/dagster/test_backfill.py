"""Computed values reach the summaries, once."""

from __future__ import annotations

import json

from wb_ops import Run
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


def graphql(bench) -> list:
    return [record for record in bench.server.requests if record.document]
