"""Dags for test_scheduler.py: each task meets one kind of answer on a server of its own."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, Asset, CronPartitionTimetable, PartitionedAssetTimetable

from wb_ops.airflow import (
    WandbCommitExportOperator,
    WandbExportOperator,
    WandbExportShardOperator,
    WandbPlanExportOperator,
    WandbRunSensor,
    wandb_days_asset,
    wandb_runs_asset,
)
from wb_ops.airflow.retry_policy import HAS_RETRY_POLICIES

FOLDER = os.environ["WB_OPS_TEST_FOLDER"]
TABLE = Asset("exported_table")
# The days of an export came with Airflow 3.3, as the policies did.
DAYS = [wandb_days_asset("ann/demo")] if HAS_RETRY_POLICIES else []
NIGHTS = [wandb_days_asset("ann/nightly")] if HAS_RETRY_POLICIES else []
LATER = timedelta(seconds=20)
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


def export(name: str, **arguments: Any) -> None:
    WandbExportOperator(
        task_id="export",
        entity="ann",
        wandb_conn_id=f"wandb_{name}",
        **{
            "warehouse": f"duckdb:///{FOLDER}/{name}.duckdb",
            "project": "demo",
            "retry_delay": timedelta(seconds=1),
            **arguments,
        },
    )


for name, options in {
    "limited": {
        "retries": 3,
        "retry_delay": timedelta(minutes=10) if HAS_RETRY_POLICIES else LATER,
    },
    "refused": {"retries": 3},
    "deferred": {"retries": 0, "deferrable": True},
}.items():
    with DAG(name, schedule="@once", start_date=BEGIN) as dag:
        export(name, **options)
    globals()[name] = dag

with DAG("waiting", schedule="@once", start_date=BEGIN):
    WandbRunSensor(
        task_id="wait",
        run="ann/demo/run0",
        wandb_conn_id="wandb_waiting",
        deferrable=True,
        poke_interval=1,
        retries=0,
    )

RUNS = wandb_runs_asset("ann/demo", wandb_conn_id="wandb_live", poll_interval_s=1)

with DAG("live", schedule=[RUNS], max_active_runs=1):
    export("live", outlets=[TABLE, *DAYS])

# The scheduler itself carries out what is empty: no process has to start for it.
with DAG("consumer", schedule=[TABLE]):
    EmptyOperator(task_id="nothing")

for days in DAYS:
    with DAG("daily", schedule=PartitionedAssetTimetable(assets=days), max_active_runs=1) as daily:
        # Each day into tables of its own: they show what a Dag run took for its window.
        export(
            "live",
            warehouse=f"duckdb:///{FOLDER}/daily.duckdb",
            dataset="day_{{ dag_run.partition_key | replace('-', '_') }}",
        )

# At midnight, the day that is over.
NIGHT = CronPartitionTimetable("0 0 * * *", timezone="UTC", run_offset=-1, run_immediately=True)
with DAG("nightly", schedule=NIGHT):
    export("nightly", project="nightly", outlets=[Asset("exported_night"), *NIGHTS])

COMMON: dict[str, Any] = {
    "wandb_conn_id": "wandb_sharded",
    "retries": 4,
    "retry_delay": timedelta(seconds=1),
}
with DAG("sharded", schedule="@once", start_date=BEGIN):
    plan = WandbPlanExportOperator(
        task_id="plan",
        entity="ann",
        project="demo",
        warehouse=f"duckdb:///{FOLDER}/sharded.duckdb",
        staging=f"{FOLDER}/staging",
        runs_per_shard=1,
        **COMMON,
    )
    shards = WandbExportShardOperator.partial(task_id="shard", **COMMON).expand(shard=plan.output)
    commit = WandbCommitExportOperator(
        task_id="commit",
        plan_uri=plan.plan_uri,
        warehouse=f"duckdb:///{FOLDER}/sharded.duckdb",
        **COMMON,
    )
    shards >> commit
