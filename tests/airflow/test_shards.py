"""An export over many tasks: plan, a mapped task for each shard, commit."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import wb_ops
from wb_ops.airflow.retry_policy import HAS_RETRY_POLICIES
from wb_ops.devserver import Fault, Matcher, Responder

pytestmark = pytest.mark.usefixtures("connection")
ROWS = 'select run_id, _step, "val_acc", loss from history order by run_id, _step'


@pytest.fixture
def export(
    run_dag: Callable[..., Any], warehouse: str, tmp_path: Path, request: pytest.FixtureRequest
) -> Callable[..., Any]:
    """Run a Dag of the three operators; its Dag run."""
    from airflow.sdk import DAG, Asset

    from wb_ops.airflow import (
        WandbCommitExportOperator,
        WandbExportShardOperator,
        WandbPlanExportOperator,
    )

    def run(outlet: Any = None, **arguments: Any) -> Any:
        given = {"runs_per_shard": 1, "staging": str(tmp_path / "staging"), **arguments}
        patience = {"retry_delay": timedelta(seconds=0.1)}
        with DAG(f"sharded_{request.node.originalname}", schedule=None, default_args=patience) as d:
            plan = WandbPlanExportOperator(
                task_id="plan", project="demo", warehouse=warehouse, **given
            )
            shards = WandbExportShardOperator.partial(task_id="shard").expand(shard=plan.output)
            commit = WandbCommitExportOperator(
                task_id="commit",
                plan_uri=plan.plan_uri,
                warehouse=warehouse,
                outlets=[outlet or Asset("sharded")],
            )
            shards >> commit
        return run_dag(d)

    return run


def tasks_of(dag_run: Any, task_id: str) -> list[Any]:
    found = [task for task in dag_run.get_task_instances() if task.task_id == task_id]
    return sorted(found, key=lambda task: task.map_index)


def xcom(task: Any, key: str = "return_value") -> Any:
    return task.xcom_pull(task_ids=task.task_id, key=key, map_indexes=task.map_index)


def rows_of(warehouse: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = wb_ops.connect(warehouse).query(ROWS, "ann__demo").to_pylist()
    return found


def test_many_tasks_write_what_one_writes(
    export: Callable[..., Any], warehouse: str, tmp_path: Path
) -> None:
    """The same rows; XCom has where the plan is, which part of it, and counts.

    Before Airflow 3.3 mapped tasks have their names from `.partial()` alone.
    """
    from wb_ops.airflow import WandbHook

    done = export()
    assert done.state == "success"
    (plan,), shards, (commit,) = (tasks_of(done, name) for name in ("plan", "shard", "commit"))
    plan_uri = xcom(plan, "plan_uri")
    assert xcom(plan) == [{"plan_uri": plan_uri, "shard": n, "shards": 3} for n in range(3)]
    names = ["1 of 3", "2 of 3", "3 of 3"] if HAS_RETRY_POLICIES else ["0", "1", "2"]
    assert [task.rendered_map_index for task in shards] == names
    counts = [xcom(task) for task in shards]
    assert all(set(map(type, count.values())) == {int} for count in counts)
    result = xcom(commit)
    assert result["history_rows"] == sum(count["history_rows"] for count in counts) == 12
    assert result["receipts"] == {"complete": 2, "growing": 1}
    assert result["watermark"]
    other = f"duckdb:///{tmp_path}/other.duckdb"
    with WandbHook().get_conn() as api:
        request = wb_ops.ExportRequest("ann", "demo")
        target = wb_ops.connect(other)
        wb_ops.execute_export(wb_ops.plan_export(request, api, target), api, target)
    # Text, because NaN is not equal to itself.
    assert json.dumps(rows_of(warehouse)) == json.dumps(rows_of(other))


def test_shards_may_be_json_text(run_dag: Callable[..., Any], tmp_path: Path) -> None:
    """As another tool or a Param gives them; Airflow shows them by their index."""
    from airflow.sdk import DAG

    from wb_ops.airflow import WandbExportShardOperator, WandbHook

    target = wb_ops.connect(f"duckdb:///{tmp_path}/w.duckdb")
    with WandbHook().get_conn() as api:
        request, folder = wb_ops.ExportRequest("ann", "demo"), str(tmp_path / "staging")
        plan = wb_ops.plan_export(request, api, target, folder=folder)
    parts = [
        json.dumps({"plan_uri": plan.uri, "shard": one.index, "shards": one.count})
        for one in plan.shards(2)
    ]
    with DAG("json_shards", schedule=None) as dag:
        WandbExportShardOperator.partial(task_id="shard", retries=0).expand(shard=parts)
    done = run_dag(dag)
    assert done.state == "success"
    assert [task.rendered_map_index for task in tasks_of(done, "shard")] == ["0", "1"]


def test_nothing_to_read_is_no_shard_and_still_a_commit(export: Callable[..., Any]) -> None:
    """Airflow skips what is mapped over nothing; the load and its watermark are written."""
    export(filters={"state": "finished"})
    done = export(filters={"state": "finished"})
    assert done.state == "success"
    assert [task.state for task in tasks_of(done, "shard")] == ["skipped"]
    (commit,) = tasks_of(done, "commit")
    assert xcom(commit)["history_rows"] == 0
    assert xcom(commit)["unchanged"] == 2


def test_a_plan_takes_what_one_task_takes(export: Callable[..., Any], warehouse: str) -> None:
    """Tables, states and runs are chosen by the planning task, for all its shards."""
    done = export(tables=["runs"], states=["finished"], run_ids='["run0", "run2"]')
    assert done.state == "success"
    runs = wb_ops.connect(warehouse).query("select run_id from runs", "ann__demo")
    assert runs["run_id"].to_pylist() == ["run0"]
    assert [task.state for task in tasks_of(done, "shard")] == ["skipped"]


def test_there_are_never_more_shards_than_airflow_maps_over(
    export: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, warehouse: str
) -> None:
    """Shards grow instead; no run is left out."""
    monkeypatch.setenv("AIRFLOW__CORE__MAX_MAP_LENGTH", "2")
    done = export(runs_per_shard="{{ 1 }}")
    assert done.state == "success"
    assert len(tasks_of(done, "shard")) == 2
    assert len(rows_of(warehouse)) == 12


def test_a_shard_that_is_limited_is_tried_again(
    export: Callable[..., Any], server: Any, warehouse: str
) -> None:
    """What was read before it stays read; every row is there once."""
    from airflow.models.taskinstancehistory import TaskInstanceHistory
    from airflow.settings import Session

    limited = Matcher(operation="RunParquetHistory", nth=2)
    server.faults.add(Fault(limited, Responder.rate_limited(1)))
    done = export()
    if not HAS_RETRY_POLICIES:
        # Mapped tasks have only the retries that `.partial()` gives them.
        assert sorted(task.state for task in tasks_of(done, "shard"))[0] == "failed"
        assert {task.try_number for task in tasks_of(done, "shard")} == {1}
        return
    assert done.state == "success"
    # In dag.test() all tasks share a process, and so the wait: the last one meets it too, unless
    # the machine is slow. Which of the mapped tasks comes first is not defined.
    tries = sorted(task.try_number for task in tasks_of(done, "shard"))
    assert (tries[0], tries[-1]) == (1, 2)
    ended = list(Session.query(TaskInstanceHistory).filter_by(run_id=done.run_id))
    assert {one.task_id for one in ended} == {"shard"}
    assert all("Retry-After=" in one.retry_reason for one in ended)
    rows = rows_of(warehouse)
    assert len({(row["run_id"], row["_step"]) for row in rows}) == len(rows) == 12


def test_a_commit_without_shards_is_refused(
    run_task: Callable[..., Any], warehouse: str, tmp_path: Path
) -> None:
    """No later try of the commit can help, and nothing was written."""
    from wb_ops.airflow import WandbCommitExportOperator, WandbHook

    target = wb_ops.connect(warehouse)
    with WandbHook().get_conn() as api:
        request = wb_ops.ExportRequest("ann", "demo")
        plan = wb_ops.plan_export(request, api, target, folder=str(tmp_path / "staging"))
    assert plan.shards(2)
    task = run_task(WandbCommitExportOperator, plan_uri=plan.uri, warehouse=warehouse)
    assert (task.state, task.try_number) == ("failed", 1)
    assert not Path(warehouse.removeprefix("duckdb:///")).exists()


def test_a_commit_that_is_incomplete_fails_each_time(
    export: Callable[..., Any],
    run_task: Callable[..., Any],
    server: Any,
    warehouse: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """With on_incomplete="fail"; what is sound is committed, the next export reads the rest."""
    from wb_ops.airflow import WandbCommitExportOperator

    broken = Matcher(path="*/exports/*", origin="storage")
    server.faults.add(Fault(broken, Responder.truncated(10), times=None))
    done = export(on_incomplete="fail")
    assert done.state == "failed"
    (plan,), (commit,) = tasks_of(done, "plan"), tasks_of(done, "commit")
    assert (commit.state, commit.try_number) == ("failed", 1)
    capfd.readouterr()
    again = run_task(
        WandbCommitExportOperator, plan_uri=xcom(plan, "plan_uri"), warehouse=warehouse
    )
    assert (again.state, again.try_number) == ("failed", 1)
    assert "2 of 3 receipts of ann/demo do not add up" in capfd.readouterr().out


@pytest.mark.airflow_3_3
def test_the_days_of_another_project_are_refused_when_it_is_planned(
    export: Callable[..., Any], server: Any
) -> None:
    """The commit's outlet is looked at before a single run is listed."""
    from wb_ops.airflow import wandb_days_asset

    done = export(outlet=wandb_days_asset("ann/other"))
    (plan,) = tasks_of(done, "plan")
    assert (plan.state, plan.try_number) == ("failed", 1)
    assert server.requests.operations() == []


@pytest.mark.parametrize("shard", [{}, "[]", {"plan_uri": "x", "shard": 3, "shards": 3}, "3"])
def test_what_is_no_shard_is_refused(shard: Any) -> None:
    """With the remedy."""
    from wb_ops.airflow.operators.arguments import parse_shard
    from wb_ops.errors import InvalidRequest

    with pytest.raises(InvalidRequest, match="shard"):
        parse_shard(shard)


def test_a_retry_goes_on_with_the_plan_and_the_rows(
    run_task: Callable[..., Any], server: Any, warehouse: str, tmp_path: Path
) -> None:
    """With a staging folder the second try plans nothing again and reads no file twice.

    Before Airflow 3.3 nobody remembers the plan: it plans anew, and writes no row twice.
    """
    from wb_ops.airflow import WandbExportOperator

    # It comes when the other two have been read.
    late = Responder(status=429, headers={"Retry-After": "1"}, delay_s=2)
    server.faults.add(Fault(Matcher(operation="HistoryPage"), late))
    task = run_task(
        WandbExportOperator,
        project="demo",
        warehouse=warehouse,
        staging=str(tmp_path / "staging"),
    )
    assert task.state == "success"
    assert len(rows_of(warehouse)) == 12
    plans = [path for path in (tmp_path / "staging").iterdir() if path.is_dir()]
    if not HAS_RETRY_POLICIES:
        assert len(plans) > 1
        return
    assert task.try_number == 2
    assert len(plans) == 1
    files = [request.path for request in server.requests if request.path.startswith("/exports/")]
    assert len(set(files)) == len(files) == 2


@pytest.mark.airflow_3_3
def test_a_task_that_is_cleared_plans_anew(
    run_task: Callable[..., Any], server: Any, warehouse: str, tmp_path: Path
) -> None:
    """A plan that is carried out is forgotten; its load is not, until its success is recorded."""
    from airflow.models.task_state_store import TaskStateStoreModel
    from airflow.settings import Session

    from wb_ops.airflow import WandbExportOperator

    given = {"project": "demo", "warehouse": warehouse, "staging": str(tmp_path / "staging")}
    task = run_task(WandbExportOperator, **given)
    assert task.state == "success"
    left = Session.query(TaskStateStoreModel).filter_by(run_id=task.run_id).all()
    assert [one.key for one in left] == ["wandb_loads"]
