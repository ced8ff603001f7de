"""Writes each finished run's best validation accuracy into its summary as `best_val_acc`.

The values come from SQL on the warehouse that `wandb_export_hourly` fills: export first.
Connection, project and warehouse are found as there. The Dag has no schedule, because it writes to
W&B; the param `dry_run` only logs what would be written.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

from airflow.sdk import DAG, Param

from wb_ops.airflow.operators.backfill import WandbBackfillSummaryOperator
from wb_ops.airflow.warehouses import without_password

AIRFLOW_HOME = Path(os.environ.get("AIRFLOW_HOME", "~/airflow")).expanduser().absolute()
FILE = f"duckdb:///{AIRFLOW_HOME}/wandb.duckdb"
# Airflow stores what a Dag is made of: a password belongs into a connection, conn://its_id.
WAREHOUSE = without_password(os.environ.get("WB_OPS_WAREHOUSE", FILE))
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
    dag_id="wandb_backfill_best_metrics",
    description="Best validation accuracy of each finished run into its W&B summary",
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
        "column": Param("val_acc", type="string", pattern=COLUMN, title="Column of history"),
        "best": Param("max", enum=["max", "min"], title="Which value is best"),
        "key": Param("best_val_acc", type="string", pattern=COLUMN, title="Summary key"),
        "dry_run": Param(False, type="boolean", title="Only log the plan"),
    },
) as dag:
    WandbBackfillSummaryOperator(
        task_id="backfill",
        entity="{{ params.entity or '' }}",
        project="{{ params.project or '' }}",
        warehouse="{{ params.warehouse }}",
        sql=BEST,
        filters={"state": "finished"},
        dry_run="{{ params.dry_run }}",
    )
