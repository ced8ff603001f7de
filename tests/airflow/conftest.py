"""A metadata database for this process, a W&B server, and a connection to it for each test."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from functools import cache
from importlib.metadata import version
from pathlib import Path
from sqlite3 import connect
from typing import Any

import pytest
from packaging.version import Version

ENTITY, PROJECT = "ann", "demo"
# Nowhere else, so a search for it finds every leak; and not whole in this file, because Airflow
# keeps the source of Dag files in its database.
KEY = "canary0" * 6
DAGS = Path(__file__).parents[2] / "airflow_dags"
AIRFLOW_3_3 = Version(version("apache-airflow-core")) >= Version("3.3")

os.environ["AIRFLOW__CORE__DAGS_FOLDER"] = str(DAGS)
os.environ["AIRFLOW__CORE__TEST_CONNECTION"] = "Enabled"
if not AIRFLOW_3_3:
    # No policy shortens it there, and five minutes are long for a test.
    os.environ["AIRFLOW__CORE__DEFAULT_TASK_RETRY_DELAY"] = "1"

# What users get: a home of its own for Airflow, its database, and dag.test().
from wb_ops.airflow import testing  # noqa: E402 - it reads the settings above

users_database = testing.airflow_database
wandb_connection = testing.wandb_connection
run_dag = testing.run_dag


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Before any fixture is made: some import what only Airflow 3.3 has."""
    if not AIRFLOW_3_3 and item.get_closest_marker("airflow_3_3"):
        pytest.skip("Airflow 3.2 does not have it")


@pytest.fixture(scope="session")
def empty_database(users_database: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the metadata database as it is made, for a deployment to begin with."""
    copy = tmp_path_factory.mktemp("database") / "airflow.db"
    with closing(connect(home() / "airflow.db")) as made, closing(connect(copy)) as target:
        made.backup(target)
    return copy


@pytest.fixture(scope="session", autouse=True)
def one_execution_api() -> None:
    """Airflow before 3.3 builds its API anew for each dag.test(), which takes seconds."""
    if not AIRFLOW_3_3:
        from airflow.sdk.execution_time import supervisor

        supervisor.in_process_api_server = cache(supervisor.in_process_api_server)


@pytest.fixture(scope="session")
def airflow_database(empty_database: Path) -> None:
    """The metadata database of this process, copied before anything is in it."""


def home() -> Path:
    if testing.AIRFLOW_HOME is None:
        pytest.fail("something imported airflow before its settings were made")
    return testing.AIRFLOW_HOME


@pytest.fixture(scope="session")
def airflow_home(airflow_database: None) -> Path:
    """AIRFLOW_HOME with a fresh metadata database."""
    return home()


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
