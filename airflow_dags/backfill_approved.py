"""Writes each finished run's best value of a metric into its summary, once a person agrees.

As `wandb_backfill_best_metrics`, in three tasks: the plan (run, key, old, new) waits under
"Required Actions" until somebody approves it; without an answer it is rejected after a day, and
nothing is written. What is changed in W&B meanwhile is left alone. The values go from plan to apply
through a file in WB_OPS_STAGING, a folder that all workers reach.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import DAG, Param

from wb_ops.airflow.operators.backfill import (
    WandbApplyBackfillOperator,
    WandbPlanBackfillOperator,
)
from wb_ops.airflow.warehouses import without_password

AIRFLOW_HOME = Path(os.environ.get("AIRFLOW_HOME", "~/airflow")).expanduser().absolute()
FILE = f"duckdb:///{AIRFLOW_HOME}/wandb.duckdb"
# Airflow stores what a Dag is made of: a password belongs into a connection, conn://its_id.
WAREHOUSE = without_password(os.environ.get("WB_OPS_WAREHOUSE", FILE))
STAGING = os.environ.get("WB_OPS_STAGING", f"{AIRFLOW_HOME}/wandb-staging")
TEXT = ["null", "string"]
COLUMN = r"^[A-Za-z_][A-Za-z0-9_]*$"

# To DuckDB a NaN is larger than any number: it would be every diverged run's best.
BEST = """
select run_id, {{ params.best }}("{{ params.column }}") as "{{ params.key }}"
from history join runs using (run_id)
where runs.state = 'finished' and runs.deleted_at is null and isfinite("{{ params.column }}")
group by run_id
"""

with DAG(
    dag_id="wandb_backfill_approved",
    description="Best value of each finished run into its W&B summary, after approval",
    doc_md=__doc__,
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    tags=["wandb"],
    params={
        "entity": Param(os.environ.get("WANDB_ENTITY"), type=TEXT, title="Entity"),
        "project": Param(os.environ.get("WANDB_PROJECT"), type=TEXT, title="Project"),
        "warehouse": Param(WAREHOUSE, type="string", title="Warehouse URL"),
        "staging": Param(STAGING, type="string", title="Folder that all workers reach"),
        "column": Param("val_acc", type="string", pattern=COLUMN, title="Column of history"),
        "best": Param("max", enum=["max", "min"], title="Which value is best"),
        "key": Param("best_val_acc", type="string", pattern=COLUMN, title="Summary key"),
    },
) as dag:
    plan = WandbPlanBackfillOperator(
        task_id="plan",
        entity="{{ params.entity or '' }}",
        project="{{ params.project or '' }}",
        warehouse="{{ params.warehouse }}",
        staging="{{ params.staging }}",
        sql=BEST,
        filters={"state": "finished"},
    )
    approve = ApprovalOperator(
        task_id="approve",
        subject="Write {{ params.key }} into W&B summaries?",
        body="{{ ti.xcom_pull(task_ids='plan')['table'] }}",
        defaults=ApprovalOperator.REJECT,
        response_timeout=timedelta(days=1),
    )
    apply = WandbApplyBackfillOperator(
        task_id="apply", plan=plan.output, warehouse="{{ params.warehouse }}"
    )
    plan >> approve >> apply
