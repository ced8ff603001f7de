"""The Dags that are shipped, from W&B to the warehouse and back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import wb_ops

DAGS = Path(__file__).parents[2] / "airflow_dags"
EXPORT, BACKFILL = "wandb_export_hourly", "wandb_backfill_best_metrics"


@pytest.fixture
def dagbag(airflow_home: Path) -> Any:
    """The shipped Dags, parsed."""
    from airflow.dag_processing.dagbag import DagBag

    return DagBag(dag_folder=DAGS, bundle_name="dags-folder")


@pytest.fixture
def run_shipped(dagbag: Any, connection: None, warehouse: str) -> Callable[..., Any]:
    """dag.test() one of the shipped Dags; its Dag run."""

    def run(dag_id: str, *, params: dict[str, Any] | None = None, **arguments: Any) -> Any:
        conf = {"project": "demo", "warehouse": warehouse, **(params or {})}
        return dagbag.get_dag(dag_id).test(run_conf=conf, **arguments)

    return run


@pytest.fixture
def best(connection: None) -> Callable[[], dict[str, Any]]:
    """Each run's `best_val_acc` as W&B has it."""
    from wb_ops.airflow import WandbHook

    def read() -> dict[str, Any]:
        with WandbHook().get_conn() as api:
            return {run.id: run.summary.get("best_val_acc") for run in api.runs("ann/demo")}

    return read


def test_the_files_have_no_errors(dagbag: Any) -> None:
    """Both are parsed, and nothing else is in the folder."""
    assert dagbag.import_errors == {}
    assert set(dagbag.dag_ids) == {EXPORT, BACKFILL}


def test_the_dags_survive_serialization(dagbag: Any) -> None:
    """The scheduler sees the retries, the policy's flag and the link; the sql shows as sql."""
    from airflow.serialization.serialized_objects import DagSerialization

    for dag_id in (EXPORT, BACKFILL):
        dag = DagSerialization.deserialize_dag(
            DagSerialization.serialize_dag(dagbag.get_dag(dag_id))
        )
        (task,) = dag.tasks
        assert task.retries == 4
        assert task.has_retry_policy
        assert [link.name for link in task.operator_extra_links] == ["W&B project"]


def test_export_then_backfill(
    run_shipped: Callable[..., Any], best: Callable[[], dict[str, Any]], warehouse: str
) -> None:
    """The best finite value of each finished run goes back into its summary."""
    assert run_shipped(EXPORT).state == "success"
    rows = wb_ops.connect(warehouse).query("select run_id from history", "ann__demo")
    assert rows.num_rows == 12
    assert run_shipped(BACKFILL).state == "success"
    assert best() == {"run0": 0.5, "run1": 0.6, "run2": None}


def test_the_backfill_again_writes_nothing(run_shipped: Callable[..., Any], server: Any) -> None:
    """What is there already is not sent again."""
    run_shipped(EXPORT)
    run_shipped(BACKFILL)
    server.requests.clear()
    task = run_shipped(BACKFILL).get_task_instance("backfill")
    result = task.xcom_pull(task_ids="backfill")
    assert (result["written"], result["unchanged"]) == (0, 2)
    assert "UpsertBucket" not in server.requests.operations()


def test_a_dry_run_leaves_the_summaries(
    run_shipped: Callable[..., Any], best: Callable[[], dict[str, Any]]
) -> None:
    """The param is enough."""
    run_shipped(EXPORT)
    assert run_shipped(BACKFILL, params={"dry_run": True}).state == "success"
    assert set(best().values()) == {None}


def test_a_run_without_a_date_exports_too(run_shipped: Callable[..., Any]) -> None:
    """Asset-triggered runs have neither logical date nor data interval."""
    assert run_shipped(EXPORT, logical_date=None).state == "success"


def test_a_column_is_only_a_name(run_shipped: Callable[..., Any]) -> None:
    """Params go into SQL, so their form is checked before a run begins."""
    with pytest.raises(ValueError, match="does not match"):
        run_shipped(BACKFILL, params={"column": 'x"); drop table runs; --'})
