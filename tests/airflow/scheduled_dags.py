"""Dags for test_scheduler.py: each task meets one kind of answer on a server of its own."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import DAG, Asset, task

from wb_ops.airflow import WandbExportOperator, wandb_runs_asset

FOLDER = os.environ["WB_OPS_TEST_FOLDER"]
TABLE = Asset("exported_table")


def export(name: str, **arguments: Any) -> None:
    WandbExportOperator(
        task_id="export",
        entity="ann",
        project="demo",
        wandb_conn_id=f"wandb_{name}",
        warehouse=f"duckdb:///{FOLDER}/{name}.duckdb",
        retry_delay=timedelta(seconds=1),
        **arguments,
    )


for name, options in {
    "limited": {"retries": 3},
    "refused": {"retries": 3},
    "deferred": {"retries": 0, "deferrable": True},
}.items():
    with DAG(name, schedule="@once", start_date=datetime(2026, 1, 1, tzinfo=UTC)) as dag:
        export(name, **options)
    globals()[name] = dag

RUNS = wandb_runs_asset("ann/demo", wandb_conn_id="wandb_live", poll_interval_s=1)

with DAG("live", schedule=[RUNS], max_active_runs=1):
    export("live", outlets=[TABLE])

with DAG("consumer", schedule=[TABLE]):

    @task
    def consume(triggering_asset_events: Any = None) -> list[Any]:
        return [event.extra for event in triggering_asset_events[TABLE]]

    consume()
