"""Exports a W&B project whenever runs in it have ended, and tells who waits for the tables.

The triggerer asks W&B once a minute; no worker waits. WANDB_ENTITY and WANDB_PROJECT name the
project where this file is parsed; the connection `wandb_default` has server and key; the warehouse
is found as in export_hourly. What an event says is not trusted to be everything: the export goes
by its own watermark, so an event that is lost or repeated costs nothing.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

from airflow.sdk import DAG, Asset, Param

from wb_ops.airflow.assets import wandb_runs_asset
from wb_ops.airflow.operators.export import WandbExportOperator

AIRFLOW_HOME = Path(os.environ.get("AIRFLOW_HOME", "~/airflow")).expanduser().absolute()
WAREHOUSE = os.environ.get("WB_OPS_WAREHOUSE", f"duckdb:///{AIRFLOW_HOME}/wandb.duckdb")
ENTITY = os.environ.get("WANDB_ENTITY") or "my-team"
PROJECT = os.environ.get("WANDB_PROJECT") or "my-project"

with DAG(
    dag_id="wandb_export_on_finish",
    description="W&B runs and histories into the warehouse as soon as runs have ended",
    doc_md=__doc__,
    schedule=[wandb_runs_asset(f"{ENTITY}/{PROJECT}")],
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    tags=["wandb"],
    params={"warehouse": Param(WAREHOUSE, type="string", title="Warehouse URL")},
) as dag:
    WandbExportOperator(
        task_id="export",
        entity=ENTITY,
        project=PROJECT,
        warehouse="{{ params.warehouse }}",
        deferrable=True,
        # Other Dags can run on it: schedule=[Asset("wandb_export")]; the event has the row count.
        outlets=[Asset("wandb_export")],
    )
