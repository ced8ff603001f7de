"""Fixtures for tests of Dags that talk to W&B: no network, no scheduler, no mocks.

In a project's top `conftest.py`: `pytest_plugins = ["wb_ops.airflow.testing"]`. Where nothing has
imported Airflow yet, it gets a home of its own in a temporary folder, with a SQLite database; else
the settings stay as they are. The first `run_dag` of a session takes some 20 s, later ones under
one second.

    def test_my_dag(wandb_connection, wandb_server, run_dag):
        wandb_server.seed_run("my-team", "my-project", "run1", history=[{"loss": 0.5}])
        assert run_dag(my_dag).state == "success"
"""

from __future__ import annotations

import atexit
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest

if TYPE_CHECKING:
    from airflow.models.dagrun import DagRun
    from airflow.sdk import DAG


class _Server(Protocol):
    """What is asked of the dev server; the fixture comes from its own pytest plugin."""

    @property
    def url(self) -> str: ...
    @property
    def api_key(self) -> str: ...


def _own_home() -> Path | None:
    # Airflow reads its settings once, when it is imported.
    if "airflow" in sys.modules:
        return None
    home = Path(tempfile.mkdtemp(prefix="wb_ops-airflow-"))
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    os.environ["AIRFLOW_HOME"] = str(home)
    os.environ["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] = f"sqlite:///{home}/airflow.db"
    os.environ["AIRFLOW__LOGGING__BASE_LOG_FOLDER"] = str(home / "logs")
    os.environ.setdefault("AIRFLOW__CORE__DAGS_FOLDER", str(home / "dags"))
    os.environ.setdefault("AIRFLOW__CORE__LOAD_EXAMPLES", "False")
    return home


AIRFLOW_HOME = _own_home()


@pytest.fixture(scope="session")
def airflow_database() -> None:
    """A metadata database with Airflow's tables."""
    from airflow.utils.db import initdb

    initdb()
    from airflow.dag_processing.bundles.manager import DagBundlesManager

    DagBundlesManager().sync_bundles_to_db()  # type: ignore[no-untyped-call]  # no types there


@pytest.fixture
def wandb_connection(monkeypatch: pytest.MonkeyPatch, wandb_server: _Server) -> None:
    """The connection `wandb_default`, to a fresh `wandb_server`.

    Rate limits are not slept in the task, so that a test sees what Airflow makes of them.
    """
    connection = {
        "conn_type": "wandb",
        "host": wandb_server.url,
        "password": wandb_server.api_key,
        "extra": {"max_wait_s": 0},
    }
    monkeypatch.setenv("AIRFLOW_CONN_WANDB_DEFAULT", json.dumps(connection))


@pytest.fixture
def run_dag(airflow_database: None) -> Callable[..., DagRun]:
    """Run a Dag with `dag.test()`, which honours retries and their delays and runs triggers.

    Takes what `dag.test()` takes, such as `run_conf`; `logical_date=None` is the shape of an
    asset-triggered run. The Dag need not be in a file.
    """

    def run(dag: DAG, **arguments: Any) -> DagRun:
        from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db

        bag = DagBag(dag_folder=os.devnull, bundle_name="dags-folder")
        bag.bag_dag(dag)
        sync_bag_to_db(bag, "dags-folder", None)
        dag_run: DagRun = dag.test(**arguments)
        return dag_run

    return run
