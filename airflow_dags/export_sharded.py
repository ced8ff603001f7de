"""Exports one W&B project over many workers: a plan, a task for each of its parts, one commit.

For large projects: the parts read from W&B at the same time, on as many workers as there are. What
they read goes through the folder WB_OPS_STAGING, which all workers must reach: a shared path, or a
URL such as s3://bucket/wandb-staging (with s3fs installed). Connection, project and warehouse are
found as in export_hourly. A part that is killed or limited by W&B goes on where it was.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

from airflow.sdk import DAG, Asset, Param

from wb_ops.airflow.operators.export_shards import (
    WandbCommitExportOperator,
    WandbExportShardOperator,
    WandbPlanExportOperator,
)
from wb_ops.airflow.warehouses import without_password

AIRFLOW_HOME = Path(os.environ.get("AIRFLOW_HOME", "~/airflow")).expanduser().absolute()
FILE = f"duckdb:///{AIRFLOW_HOME}/wandb.duckdb"
# Airflow stores what a Dag is made of: a password belongs into a connection, conn://its_id.
WAREHOUSE = without_password(os.environ.get("WB_OPS_WAREHOUSE", FILE))
STAGING = os.environ.get("WB_OPS_STAGING", f"{AIRFLOW_HOME}/wandb-staging")
TEXT = ["null", "string"]

with DAG(
    dag_id="wandb_export_sharded",
    description="W&B runs and histories into the warehouse, read by many tasks at once",
    doc_md=__doc__,
    # A cron string gives a data interval of no width; the export goes by its watermark instead.
    schedule="0 3 * * *",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    tags=["wandb"],
    params={
        "entity": Param(os.environ.get("WANDB_ENTITY"), type=TEXT, title="Entity"),
        "project": Param(os.environ.get("WANDB_PROJECT"), type=TEXT, title="Project"),
        "warehouse": Param(WAREHOUSE, type="string", title="Warehouse URL"),
        "staging": Param(STAGING, type="string", title="Folder that all workers reach"),
        "mode": Param("incremental", enum=["incremental", "reconcile", "full"], title="Mode"),
    },
) as dag:
    plan = WandbPlanExportOperator(
        task_id="plan",
        entity="{{ params.entity or '' }}",
        project="{{ params.project or '' }}",
        warehouse="{{ params.warehouse }}",
        staging="{{ params.staging }}",
        mode="{{ params.mode }}",
        runs_per_shard=100,
    )
    # W&B limits requests per key: more tasks at once than this mostly wait for each other. The
    # retries are the operator's own, which Airflow before 3.3 does not give to mapped tasks.
    shards = WandbExportShardOperator.partial(
        task_id="shard", max_active_tis_per_dagrun=8, retries=4
    ).expand(shard=plan.output)
    commit = WandbCommitExportOperator(
        task_id="commit",
        plan_uri=plan.plan_uri,
        warehouse="{{ params.warehouse }}",
        # Other Dags can run on it: schedule=[Asset("wandb_export")].
        outlets=[Asset("wandb_export")],
    )
    plan >> shards >> commit
