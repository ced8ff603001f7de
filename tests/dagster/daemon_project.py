"""The code location of test_daemon.py; the daemon loads it by its path."""

import os
from datetime import UTC, datetime

import dagster as dg

from wb_ops.dagster import (
    WandbResource,
    WarehouseResource,
    build_finished_runs_sensor,
    build_wandb_assets,
    run_partitions,
)

FOLDER = os.environ["TEST_FOLDER"]
RUNS = run_partitions("ann", "demo")


def warehouse(name: str) -> WarehouseResource:
    return WarehouseResource(url=f"duckdb:///{FOLDER}/{name}.duckdb")


export = build_wandb_assets(entity="ann", project="demo", partitions_def=RUNS, pool="wandb_demo")
refused = build_wandb_assets(
    entity="ann",
    project="refused",
    wandb=WandbResource(base_url=os.environ["TEST_REFUSING"], api_key="wrong" * 10),
    warehouse=warehouse("refused"),
)
limited = build_wandb_assets(
    entity="ann",
    project="limited",
    wandb=WandbResource(base_url=os.environ["TEST_LIMITING"]),
    warehouse=warehouse("limited"),
)


@dg.asset(pool="wandb_api")
def meanwhile() -> None:
    """Wants the slot that `limited` holds."""


JOBS = {
    "refused": dg.define_asset_job("refused_job", dg.AssetSelection.assets(refused)),
    "limited": dg.define_asset_job("limited_job", dg.AssetSelection.assets(limited)),
    "meanwhile": dg.define_asset_job("meanwhile_job", dg.AssetSelection.assets(meanwhile)),
}


def is_waiting(instance: dg.DagsterInstance) -> bool:
    runs = instance.get_runs(dg.RunsFilter(job_name="limited_job"))
    events = [entry.dagster_event for run in runs for entry in instance.all_logs(run.run_id)]
    return any(event is not None and event.is_step_up_for_retry for event in events)


@dg.sensor(
    jobs=list(JOBS.values()),
    minimum_interval_seconds=5,
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def launcher(context: dg.SensorEvaluationContext):
    """Launches each job once; `meanwhile` only when `limited` waits."""
    names = ["refused", "limited", *(["meanwhile"] if is_waiting(context.instance) else [])]
    return [dg.RunRequest(run_key=name, job_name=f"{name}_job") for name in names]


defs = dg.Definitions(
    assets=[export, refused, limited, meanwhile],
    jobs=list(JOBS.values()),
    sensors=[
        launcher,
        build_finished_runs_sensor(
            entity="ann",
            project="demo",
            target=export,
            partitions_def=RUNS,
            start_at=datetime(2026, 1, 1, tzinfo=UTC),
            minimum_interval_seconds=5,
            default_status=dg.DefaultSensorStatus.RUNNING,
        ),
    ],
    resources={
        "wandb": WandbResource(base_url=os.environ["TEST_SERVER"]),
        "warehouse": warehouse("demo"),
    },
)
