"""Exports one W&B project every hour: only what has changed since the watermark.

The connection `wandb_default` names the server, the key and, unless WANDB_ENTITY and WANDB_PROJECT
do, the project. WB_OPS_WAREHOUSE is the warehouse's URL, without a password, or conn://ID for the
Airflow connection of a PostgreSQL database; by default a DuckDB file in AIRFLOW_HOME. A single Dag
run can be given others as params, or a window of created time for a backfill.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

from airflow.sdk import DAG, Asset, Param

from wb_ops.airflow.operators.export import WandbExportOperator
from wb_ops.airflow.warehouses import without_password

AIRFLOW_HOME = Path(os.environ.get("AIRFLOW_HOME", "~/airflow")).expanduser().absolute()
FILE = f"duckdb:///{AIRFLOW_HOME}/wandb.duckdb"
# Airflow stores what a Dag is made of: a password belongs into a connection, conn://its_id.
WAREHOUSE = without_password(os.environ.get("WB_OPS_WAREHOUSE", FILE))
TEXT = ["null", "string"]

with DAG(
    dag_id="wandb_export_hourly",
    description="W&B runs and histories into the warehouse, incrementally",
    doc_md=__doc__,
    # A cron string gives a data interval of no width; the export goes by its watermark instead.
    schedule="0 * * * *",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    tags=["wandb"],
    params={
        "entity": Param(os.environ.get("WANDB_ENTITY"), type=TEXT, title="Entity"),
        "project": Param(os.environ.get("WANDB_PROJECT"), type=TEXT, title="Project"),
        "warehouse": Param(WAREHOUSE, type="string", title="Warehouse URL"),
        "mode": Param("incremental", enum=["incremental", "reconcile", "full"], title="Mode"),
        "since": Param(None, type=TEXT, title="Created since", description="ISO, with time zone"),
        "until": Param(None, type=TEXT, title="Created until", description="ISO, with time zone"),
    },
) as dag:
    WandbExportOperator(
        task_id="export",
        entity="{{ params.entity or '' }}",
        project="{{ params.project or '' }}",
        warehouse="{{ params.warehouse }}",
        mode="{{ params.mode }}",
        since="{{ params.since or '' }}",
        until="{{ params.until or '' }}",
        # Other Dags can run on it: schedule=[Asset("wandb_export")].
        outlets=[Asset("wandb_export")],
    )
