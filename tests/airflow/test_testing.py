"""The fixtures that users get, used as a user does."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from wb_ops.devserver import Fault, Matcher, Responder

CONFTEST = 'pytest_plugins = ["wb_ops.airflow.testing"]\n'
USERS_TEST = """
def test_home(wandb_connection, pytestconfig):
    from airflow.configuration import AIRFLOW_HOME, conf
    from airflow.sdk import BaseHook
    assert "wb_ops-airflow-" in AIRFLOW_HOME
    assert conf.get("database", "sql_alchemy_conn") == f"sqlite:///{AIRFLOW_HOME}/airflow.db"
    assert BaseHook.get_connection("wandb_default").conn_type == "wandb"
"""


def test_a_users_dag_runs_against_the_server(
    wandb_connection: None, wandb_server: Any, run_dag: Callable[..., Any], tmp_path: Path
) -> None:
    """Connection, server and dag.test() in three fixtures; faults show what Airflow makes of it."""
    from airflow.sdk import DAG

    from wb_ops.airflow import WandbExportOperator

    wandb_server.seed_run("team", "proj", "run1", history=[{"loss": 0.5}])
    wandb_server.faults.add(Fault(Matcher(operation="Runs"), Responder.rate_limited(0.1)))
    with DAG("users_dag", schedule=None) as dag:
        WandbExportOperator(
            task_id="export",
            entity="team",
            project="proj",
            warehouse=f"duckdb:///{tmp_path}/w.duckdb",
        )
    task = run_dag(dag, logical_date=None).get_task_instance("export")
    assert (task.state, task.try_number) == ("success", 2)
    assert task.xcom_pull(task_ids="export")["history_rows"] == 1


@pytest.mark.slow
def test_a_project_switches_them_on_with_one_line(tmp_path: Path) -> None:
    """Whatever AIRFLOW_HOME the shell has, tests do not touch it."""
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_dags.py").write_text(USERS_TEST)
    users_home = tmp_path / "home"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)],
        env={**os.environ, "AIRFLOW_HOME": str(users_home)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert not users_home.exists()
