"""Runs the Airflow Dag of airflow_dags with `dag.test()`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from demo.steps import report_stream


def configure() -> None:
    """Give Airflow a home and a connection of its own; must come before its first import."""
    home = os.environ["AIRFLOW_HOME"]
    os.environ.update(
        AIRFLOW__CORE__DAGS_FOLDER=str(Path("airflow_dags").resolve()),
        AIRFLOW__CORE__LOAD_EXAMPLES="False",
        AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=f"sqlite:///{home}/airflow.db",
        AIRFLOW__LOGGING__BASE_LOG_FOLDER=f"{home}/logs",
    )


def main() -> int:
    """Run the Dag; reports what its task returned."""
    report = report_stream()
    configure()
    from airflow.models import Connection
    from airflow.utils.db import initdb

    url = os.environ["WANDB_BASE_URL"]
    connection = Connection(
        conn_id="wandb_default",
        conn_type="wandb",
        host=url,
        password=os.environ["WANDB_API_KEY"],
        extra={"entity": os.environ["WB_OPS_ENTITY"], "project": os.environ["WB_OPS_PROJECT"]},
    )
    os.environ["AIRFLOW_CONN_WANDB_DEFAULT"] = connection.as_json()
    initdb()
    from airflow_dags.backfill_best_metrics import dag

    run = dag.test()
    done = next(iter(run.get_task_instances()))
    returned = done.xcom_pull(task_ids=done.task_id) or {}
    counts = ", ".join(
        f"{returned.get(name, 0)} {name}"
        for name in ("written", "unchanged", "skipped", "conflicts")
    )
    print(f"Dag {dag.dag_id}: {run.state}; values: {counts}", file=report, flush=True)
    return 0 if run.state == "success" else 1


if __name__ == "__main__":
    sys.exit(main())
