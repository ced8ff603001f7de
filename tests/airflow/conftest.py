"""A metadata database for this process, a W&B server, and a connection to it for each test."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

ENTITY, PROJECT = "ann", "demo"
# Nowhere else, so a search for it finds every leak; and not whole in this file, because Airflow
# keeps the source of Dag files in its database.
KEY = "canary0" * 6
DAGS = Path(__file__).parents[2] / "airflow_dags"

# Airflow reads its settings once, when it is imported.
HOME: Path | None = None
if "airflow" not in sys.modules:
    HOME = Path(tempfile.mkdtemp(prefix="wb_ops-airflow-"))
    atexit.register(shutil.rmtree, HOME, ignore_errors=True)
    os.environ.update(
        {
            "AIRFLOW_HOME": str(HOME),
            "AIRFLOW__CORE__DAGS_FOLDER": str(DAGS),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
            "AIRFLOW__CORE__TEST_CONNECTION": "Enabled",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{HOME}/airflow.db",
            "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(HOME / "logs"),
        }
    )


@pytest.fixture(scope="session")
def airflow_home() -> Path:
    """AIRFLOW_HOME with a fresh metadata database."""
    if HOME is None:
        pytest.fail("something imported airflow before its settings were made")
    from airflow.utils.db import initdb

    initdb()
    from airflow.dag_processing.bundles.manager import DagBundlesManager

    DagBundlesManager().sync_bundles_to_db()
    return HOME


@pytest.fixture
def server() -> Iterator[Any]:
    """A W&B server whose only key is the canary; with three runs, one of which still runs."""
    from wb_ops.devserver import ApiKey, DevServer

    with DevServer(api_keys={KEY: ApiKey(username=ENTITY)}) as running:
        running.seed_runs(_run(number) for number in range(3))
        yield running


def _run(number: int) -> dict[str, Any]:
    rows = [
        {"_step": step, "_timestamp": 1.7e9 + step, "_runtime": step, "val_acc": acc, "loss": 1.0}
        for step, acc in enumerate([0.1, 0.5 + number / 10, float("nan"), 0.3])
    ]
    return {
        "entity": ENTITY,
        "project": PROJECT,
        "run_id": f"run{number}",
        "config": {"lr": 0.1 * (number + 1)},
        "state": "running" if number == 2 else "finished",
        "history": rows,
    }


@pytest.fixture(autouse=True)
def no_other_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Only the connection says where W&B is and who asks."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path))


@pytest.fixture
def set_connection(monkeypatch: pytest.MonkeyPatch, server: Any) -> Callable[..., None]:
    """Define `wandb_default`; arguments replace its fields."""

    def define(**fields: Any) -> None:
        extra = {"entity": ENTITY, "max_wait_s": 0, "timeout": 10, **fields.pop("extra", {})}
        connection = {"conn_type": "wandb", "host": server.url, "password": KEY, **fields}
        monkeypatch.setenv("AIRFLOW_CONN_WANDB_DEFAULT", json.dumps({**connection, "extra": extra}))

    return define


@pytest.fixture
def connection(set_connection: Callable[..., None]) -> None:
    """The connection `wandb_default` to the server, with its key."""
    set_connection()


@pytest.fixture
def warehouse(tmp_path: Path) -> str:
    """The URL of a DuckDB file that does not exist yet."""
    return f"duckdb:///{tmp_path}/warehouse.duckdb"


@pytest.fixture
def run_dag(airflow_home: Path) -> Callable[..., Any]:
    """Run a Dag that is in no file with dag.test(); its Dag run."""

    def run(dag: Any, **arguments: Any) -> Any:
        from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db

        bag = DagBag(dag_folder=os.devnull, bundle_name="dags-folder")
        bag.bag_dag(dag)
        sync_bag_to_db(bag, "dags-folder", None)
        return dag.test(**arguments)

    return run


@pytest.fixture
def run_task(run_dag: Callable[..., Any], request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Run a Dag of one task with dag.test(); its first task instance when it has ended."""

    def run(operator: Any, *, default_args: dict[str, Any] | None = None, **arguments: Any) -> Any:
        from airflow.sdk import DAG

        name = "".join(sign if sign.isalnum() else "_" for sign in request.node.name)
        arguments.setdefault("retry_delay", timedelta(seconds=0.1))
        with DAG(f"dag_{name}", schedule=None, default_args=default_args or {}) as dag:
            operator(task_id="task", **arguments)
        return run_dag(dag).get_task_instance("task")

    return run
