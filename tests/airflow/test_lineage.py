"""What an export tells about its tables: schema hash and OpenLineage."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import wb_ops

pytestmark = pytest.mark.usefixtures("connection")


@pytest.fixture
def exported(run_dag: Callable[..., Any], warehouse: str) -> Any:
    """Export some tables; the task when it has ended: the copy that ran."""
    from airflow.sdk import DAG

    from wb_ops.airflow import WandbExportOperator

    def export(*tables: str) -> Any:
        ran: list[Any] = []
        with DAG("lineage", schedule=None) as dag:
            WandbExportOperator(
                task_id="task",
                project="demo",
                warehouse=warehouse,
                tables=tables,
                on_success_callback=lambda context: ran.append(context["task"]),
            )
        done = run_dag(dag)
        assert done.state == "success"
        ran[0].result = done.get_task_instance("task").xcom_pull(task_ids="task")
        return ran[0]

    return export


def hash_of(warehouse: str) -> str | None:
    from wb_ops.airflow.lineage import Exported, read_columns

    columns = read_columns(wb_ops.connect(warehouse), "ann__demo", ("runs", "history"))
    return Exported("http://w", "ann", "demo", warehouse, "ann__demo", {}, columns).schema_hash


def test_the_hash_changes_with_the_columns(
    run_task: Callable[..., Any], server: Any, warehouse: str
) -> None:
    """More rows leave it; a new metric changes it."""
    from wb_ops.airflow import WandbExportOperator

    def export() -> str:
        task = run_task(WandbExportOperator, project="demo", warehouse=warehouse)
        found: str = task.xcom_pull(task_ids="task")["schema_hash"]
        return found

    first = export()
    server.seed_run("ann", "demo", "more", history=[{"loss": 2.0}])
    assert export() == first == hash_of(warehouse)
    server.seed_run("ann", "demo", "wider", history=[{"loss": 2.0, "f1": 0.5}])
    assert export() != first


def test_a_warehouse_that_cannot_be_read_has_no_hash(warehouse: str) -> None:
    """The rows are committed by then: the task does not fail for it."""
    Path(warehouse.removeprefix("duckdb:///")).write_text("not a database" * 1000)
    assert hash_of(warehouse) is None


def test_openlineage_is_told_what_was_read_and_written(
    exported: Any, server: Any, warehouse: str
) -> None:
    """Namespaces, names, row counts and columns; the key is not among them."""
    pytest.importorskip("airflow.providers.openlineage", reason="an optional provider")
    lineage = exported("runs", "history").get_openlineage_facets_on_complete(None)
    (source,) = lineage.inputs
    host = server.url.removeprefix("http://")
    assert (source.namespace, source.name) == (f"wandb://{host}", "ann/demo/runs")
    runs, history = lineage.outputs
    assert (history.namespace, history.name) == (warehouse, "ann__demo.history")
    assert runs.outputFacets["outputStatistics"].rowCount == 3
    assert history.outputFacets["outputStatistics"].rowCount == 12
    columns = {field.name: field.type for field in history.facets["schema"].fields}
    assert columns["val_acc"] == "DOUBLE"
    assert "run_id" in columns


def test_only_what_was_exported_is_told(exported: Any, server: Any) -> None:
    """System metrics are an output with rows of their own; a history that was not read is none."""
    events = [{"_timestamp": 1.0 * tick, "system.cpu": tick} for tick in range(5)]
    server.seed_run("ann", "demo", "busy", history=[{"loss": 1.0}], events=events)
    task = exported("runs", "system_metrics")
    outputs = task.get_openlineage_facets_on_complete(None).outputs
    rows = {one.name: one.outputFacets["outputStatistics"].rowCount for one in outputs}
    assert rows == {"ann__demo.runs": 4, "ann__demo.system_metrics": 5}
    assert "sampled" in {field.name for field in outputs[1].facets["schema"].fields}
    assert (task.result["system_rows"], task.result["history_rows"]) == (5, 0)
    assert task.result["schema_hash"] != exported("runs").result["schema_hash"]


def test_a_task_that_did_not_run_has_no_lineage() -> None:
    """OpenLineage asks failed tasks too."""
    from wb_ops.airflow import WandbExportOperator

    task = WandbExportOperator(task_id="task", warehouse="duckdb:///x")
    assert task.get_openlineage_facets_on_complete(None) is None
