"""The examples of the page are files that Airflow reads, and Dags that run."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from wb_ops.airflow.assets import HAS_RUNTIME_PARTITIONS

PAGE = (Path(__file__).parents[2] / "docs" / "airflow.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
# One that waits for a person runs as airflow_dags/backfill_approved.py, in test_dags.py.
DAGS = [block for block in BLOCKS if "with DAG(" in block]
FRAGMENT = """
from airflow.sdk import DAG
from wb_ops.airflow import WandbExportOperator
with DAG("fragment", schedule=None, params={"run_ids": ["r1"]}):
"""


@pytest.fixture
def parse(
    server: Any,
    set_connection: Callable[..., None],
    airflow_home: Path,
    warehouse: str,
    tmp_path: Path,
) -> Callable[[str], list[Any]]:
    """Read an example as a Dag file; its Dags. Only the places in it are others."""
    from airflow.dag_processing.dagbag import DagBag

    rows = [{"_step": step, "val_acc": step / 4, "loss": 1.0} for step in range(3)]
    server.seed_run("my-team", "my-project", "r1", history=rows, summary='{"val_acc": 0.5}')
    set_connection(extra={"entity": "my-team"})
    places = {
        "duckdb:////data/wandb.duckdb": warehouse,
        "s3://my-bucket/wandb-staging": str(tmp_path / "staging"),
    }

    def read(code: str) -> list[Any]:
        for of_page, ours in places.items():
            code = code.replace(of_page, ours)
        folder = tmp_path / "dags"
        folder.mkdir()
        (folder / "example.py").write_text(code)
        bag = DagBag(dag_folder=folder, bundle_name="dags-folder")
        assert not bag.import_errors, "\n".join(bag.import_errors.values())
        return [bag.get_dag(dag_id) for dag_id in sorted(bag.dag_ids)]

    return read


@pytest.mark.parametrize("block", DAGS, ids=[re.findall(r'DAG\("(\w+)"', one)[0] for one in DAGS])
def test_an_example_runs_as_it_stands(
    parse: Callable[[str], list[Any]],
    run_dag: Callable[..., Any],
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    block: str,
) -> None:
    """Copied into a file of its own; what it imports is all that it needs."""
    if "conn://wandb_warehouse" in block:
        server = urlsplit(request.getfixturevalue("postgres_server"))
        fields = {"host": parse_qs(server.query)["host"][0], "login": "postgres"}
        connection = {"conn_type": "postgres", "schema": "postgres", **fields}
        monkeypatch.setenv("AIRFLOW_CONN_WANDB_WAREHOUSE", json.dumps(connection))
    if "wandb_days_asset" in block and not HAS_RUNTIME_PARTITIONS:
        with pytest.raises(AssertionError, match=r"needs Airflow 3\.3 or newer"):
            parse(block)
        return
    dags = parse(block)
    assert dags
    for dag in dags:
        if "ApprovalOperator" not in block and dag.tasks:
            assert run_dag(dag).state == "success", dag.dag_id


def test_the_arguments_of_an_export_are_as_they_stand(
    parse: Callable[[str], list[Any]], run_dag: Callable[..., Any]
) -> None:
    """An operator without its Dag."""
    (operator,) = [block for block in BLOCKS if block.startswith("WandbExportOperator(")]
    (dag,) = parse(FRAGMENT + re.sub("^", "    ", operator, flags=re.MULTILINE))
    task = run_dag(dag).get_task_instance("export")
    assert task.xcom_pull(task_ids="export")["runs"] == 1


def test_the_users_test_of_the_page_passes(
    wandb_connection: None, wandb_server: Any, run_dag: Callable[..., Any], warehouse: str
) -> None:
    """With the fixtures that it names, on a Dag of the reader's."""
    from airflow.sdk import DAG

    from wb_ops.airflow import WandbExportOperator

    with DAG("readers_dag", schedule=None) as dag:
        WandbExportOperator(
            task_id="export", entity="my-team", project="my-project", warehouse=warehouse
        )
    (block,) = [one for one in BLOCKS if "pytest_plugins" in one]
    names: dict[str, Any] = {"my_dag": dag}
    exec(compile(block, "docs/airflow.md", "exec"), names)
    names["test_export"](wandb_connection, wandb_server, run_dag)
