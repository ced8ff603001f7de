"""Exports a W&B project whenever runs in it have ended, and tells who waits for the tables.

The triggerer asks W&B once a minute; no worker waits. WANDB_ENTITY and WANDB_PROJECT name the
project, in the environment of whatever parses Dags and of the workers: an asset has one, so the
connection `wandb_default` gives only server and key here. Without them the Dag has no schedule and
nothing is asked. WB_OPS_WAREHOUSE is as in export_hourly. What an event says is not trusted to be
everything: the export goes by its own watermark, so one that is lost or repeated costs nothing.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

from airflow.sdk import DAG, Asset, Param

from wb_ops.airflow.assets import wandb_runs_asset
from wb_ops.airflow.operators.export import WandbExportOperator
from wb_ops.airflow.warehouses import without_password

AIRFLOW_HOME = Path(os.environ.get("AIRFLOW_HOME", "~/airflow")).expanduser().absolute()
FILE = f"duckdb:///{AIRFLOW_HOME}/wandb.duckdb"
# Airflow stores what a Dag is made of: a password belongs into a connection, conn://its_id.
WAREHOUSE = without_password(os.environ.get("WB_OPS_WAREHOUSE", FILE))
ENTITY, PROJECT = os.environ.get("WANDB_ENTITY"), os.environ.get("WANDB_PROJECT")

with DAG(
    dag_id="wandb_export_on_finish",
    description="W&B runs and histories into the warehouse as soon as runs have ended",
    doc_md=__doc__,
    schedule=[wandb_runs_asset(f"{ENTITY}/{PROJECT}")] if ENTITY and PROJECT else None,
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
