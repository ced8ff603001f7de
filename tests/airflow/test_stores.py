"""What Airflow's state stores keep of an export."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import wb_ops

# What an export is without them, every other test of it shows on Airflow 3.2.
pytestmark = [
    pytest.mark.usefixtures("connection"),
    pytest.mark.airflow_3_3,
]


@pytest.fixture
def export(run_dag: Callable[..., Any], warehouse: str) -> Callable[..., Any]:
    """Run an export whose outlet is `table`, then read the state store of that asset."""
    from airflow.sdk import DAG, Asset, task

    from wb_ops.airflow import WandbExportOperator

    def run(name: str, value: Any = None) -> tuple[Any, Any]:
        table = Asset(name, uri=f"x://{name}")

        @task(inlets=[table])
        def look(asset_state_store: Any = None) -> Any:
            return asset_state_store[table].get("wandb_watermark")

        @task(outlets=[table])
        def tamper(asset_state_store: Any = None) -> None:
            if value is not None:
                asset_state_store[table].set("wandb_watermark", value)

        with DAG(f"mirror_{name}", schedule=None) as dag:
            exporting = WandbExportOperator(
                task_id="export", project="demo", warehouse=warehouse, outlets=[table]
            )
            tamper() >> exporting >> look()
        done = run_dag(dag)
        return tuple(
            done.get_task_instance(one).xcom_pull(task_ids=one) for one in ("export", "look")
        )

    return run


def test_the_watermark_is_mirrored_on_the_outlet(export: Callable[..., Any]) -> None:
    """What a page or the REST API of Airflow shows is what the warehouse holds."""
    result, seen = export("seen")
    assert seen["watermark"] == result["watermark"]
    assert (seen["load_id"], seen["row_count"]) == (result["load_id"], 12)


def test_the_mirror_is_never_read(export: Callable[..., Any], warehouse: str) -> None:
    """A value that somebody sets there, however far ahead, changes no export."""
    ahead = {"watermark": "2099-01-01T00:00:00+00:00"}
    result, seen = export("ahead", ahead)
    assert result["history_rows"] == 12
    assert seen["watermark"] == result["watermark"] != ahead["watermark"]
    state = wb_ops.connect(warehouse).read_tables("ann__demo", ("_wb_state",))["_wb_state"]
    assert state["watermark"].to_pylist()[0].isoformat() == result["watermark"]


@pytest.fixture
def take_away(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Have a method of the tasks' state store fail as it does where the API server does."""
    from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType
    from airflow.sdk.execution_time.comms import ErrorResponse
    from airflow.sdk.execution_time.context import TaskStateStoreAccessor

    def away(*_: Any) -> None:
        raise AirflowRuntimeError(ErrorResponse(error=ErrorType.API_SERVER_ERROR))

    return lambda method: monkeypatch.setattr(TaskStateStoreAccessor, method, away)


def test_a_store_that_is_away_from_the_start_costs_a_plan_and_no_task(
    run_task: Callable[..., Any],
    warehouse: str,
    tmp_path: Path,
    take_away: Callable[[str], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is neither asked for the plan of an earlier try nor told of this one."""
    from wb_ops.airflow import WandbExportOperator

    for method in ("get", "set", "delete"):
        take_away(method)
    task = run_task(
        WandbExportOperator, project="demo", warehouse=warehouse, staging=str(tmp_path / "staging")
    )
    assert (task.state, task.try_number) == ("success", 1)
    assert task.xcom_pull(task_ids="task")["history_rows"] == 12
    for told in ("not asked for an earlier plan", "does not have the plan"):
        assert len([one for one in caplog.messages if told in one]) == 1


@pytest.mark.parametrize("staging", [None, "staging"])
def test_a_store_that_is_away_fails_no_committed_export(
    run_task: Callable[..., Any],
    warehouse: str,
    tmp_path: Path,
    take_away: Callable[[str], None],
    caplog: pytest.LogCaptureFixture,
    staging: str | None,
) -> None:
    """Its last word is to forget the plan; without a folder there is none."""
    from wb_ops.airflow import WandbExportOperator

    take_away("delete")
    folder = staging and str(tmp_path / staging)
    task = run_task(WandbExportOperator, project="demo", warehouse=warehouse, staging=folder)
    assert (task.state, task.try_number) == ("success", 1)
    told = [one for one in caplog.messages if "the plan that is carried out" in one]
    assert len(told) == (1 if staging else 0)
