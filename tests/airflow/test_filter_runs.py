"""A list of runs that tasks can be mapped over."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytestmark = pytest.mark.usefixtures("connection")


@pytest.fixture
def listed(run_task: Callable[..., Any]) -> Callable[..., Any]:
    """Run one task; its instance and its result."""
    from wb_ops.airflow import WandbFilterRunsOperator

    def run(**arguments: Any) -> tuple[Any, Any]:
        task = run_task(WandbFilterRunsOperator, **{"project": "demo", **arguments})
        return task, task.xcom_pull(task_ids="task")

    return run


def test_each_run_that_matches_is_an_element(listed: Callable[..., Any], server: Any) -> None:
    """By creation, with its display name."""
    server.edit_run("ann", "demo", "run1", display_name="brave-sun-1")
    _, runs = listed(filters={"state": "finished"})
    assert runs == [
        {"run_id": "run0", "name": "run0"},
        {"run_id": "run1", "name": "brave-sun-1"},
    ]


def test_chunks_hold_every_run_once(listed: Callable[..., Any]) -> None:
    """The last chunk is shorter; names say what is in it."""
    _, chunks = listed(chunk_size="{{ 2 }}")
    assert chunks == [
        {"run_ids": ["run0", "run1"], "name": "run0 … run1 (2)"},
        {"run_ids": ["run2"], "name": "run2"},
    ]


def test_no_match_is_an_empty_list(listed: Callable[..., Any]) -> None:
    """Airflow skips what is mapped over nothing."""
    task, runs = listed(filters='{"state": "killed"}')
    assert (task.state, runs) == ("success", [])


@pytest.mark.parametrize(
    "arguments", [{}, {"chunk_size": 1}, {"chunk_size": 0}, {"max_runs": 2}], ids=str
)
def test_a_list_that_airflow_cannot_map_is_refused(
    listed: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, arguments: dict[str, Any]
) -> None:
    """Here, where the remedy can be named, and at the first try."""
    monkeypatch.setenv("AIRFLOW__CORE__MAX_MAP_LENGTH", "2")
    task, runs = listed(**arguments)
    assert (task.state, task.try_number, runs) == ("failed", 1, None)


def test_the_remedy_is_named() -> None:
    """The smallest chunk that fits."""
    from wb_ops.airflow.operators.filter_runs import _fitting
    from wb_ops.errors import InvalidRequest

    runs = [{"run_id": str(number), "name": str(number)} for number in range(2050)]
    with pytest.raises(InvalidRequest, match=r"Airflow takes 1024 .* chunk_size=3 or more"):
        _fitting(runs, None)
    assert len(_fitting(runs, 3)) == 684


def test_tasks_are_mapped_over_it_and_have_its_names(
    run_dag: Callable[..., Any], server: Any
) -> None:
    """From the filter to one task for each run, with a client and a name in the grid."""
    from airflow.sdk import DAG, task

    from wb_ops.airflow import WandbFilterRunsOperator

    with DAG("mapped_runs", schedule=None) as dag:
        runs = WandbFilterRunsOperator(
            task_id="runs", project="demo", filters={"state": "finished"}
        )

        @task.wandb(map_index_template="{{ task.op_kwargs['run'].name }}")
        def best(run: dict[str, str], api: Any) -> float:
            rows = api.run(f"ann/demo/{run['run_id']}").scan_history(keys=["val_acc"])
            return max(row["val_acc"] for row in rows if row["val_acc"] == row["val_acc"])

        best.expand(run=runs.output)
    done = run_dag(dag)
    tasks = sorted(
        (one for one in done.get_task_instances() if one.task_id == "best"),
        key=lambda one: one.map_index,
    )
    assert [one.state for one in tasks] == ["success", "success"]
    assert [one.rendered_map_index for one in tasks] == ["run0", "run1"]
    values = [one.xcom_pull(task_ids="best", map_indexes=one.map_index) for one in tasks]
    assert values == [0.5, 0.6]
