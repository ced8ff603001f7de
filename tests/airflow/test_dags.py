"""The Dags that are shipped, from W&B to the warehouse and back."""

from __future__ import annotations

import runpy
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

import wb_ops
from wb_ops.airflow.retry_policy import HAS_RETRY_POLICIES

# dag.test() waits for an answer for as long as it takes.
pytestmark = pytest.mark.timeout(120)

DAGS = Path(__file__).parents[2] / "airflow_dags"
EXPORT, BACKFILL = "wandb_export_hourly", "wandb_backfill_best_metrics"
ON_FINISH, APPROVED = "wandb_export_on_finish", "wandb_backfill_approved"
SHARDED = "wandb_export_sharded"
# The trigger of Airflow 3.2 that waits for a person fails in dag.test(), whatever the Dag.
ASKING = [APPROVED] if HAS_RETRY_POLICIES else []


@pytest.fixture
def dagbag(airflow_home: Path) -> Any:
    """The shipped Dags, parsed."""
    from airflow.dag_processing.dagbag import DagBag

    return DagBag(dag_folder=DAGS, bundle_name="dags-folder")


@pytest.fixture
def run_shipped(
    dagbag: Any, connection: None, warehouse: str, tmp_path: Path
) -> Callable[..., Any]:
    """dag.test() one of the shipped Dags; its Dag run."""

    def run(dag_id: str, *, params: dict[str, Any] | None = None, **arguments: Any) -> Any:
        dag = dagbag.get_dag(dag_id)
        folders = {"staging": str(tmp_path)} if "staging" in dag.params else {}
        conf = {"project": "demo", "warehouse": warehouse, **folders, **(params or {})}
        return dag.test(run_conf=conf, **arguments)

    return run


@pytest.fixture
def best(connection: None) -> Callable[[], dict[str, Any]]:
    """Each run's `best_val_acc` as W&B has it."""
    from wb_ops.airflow import WandbHook

    def read() -> dict[str, Any]:
        with WandbHook().get_conn() as api:
            return {run.id: run.summary.get("best_val_acc") for run in api.runs("ann/demo")}

    return read


@pytest.fixture
def answer(airflow_home: Path) -> Callable[[str], None]:
    """Click once on the page "Required Actions", as soon as a task waits there."""

    def click(choice: str) -> None:
        Thread(target=respond, args=(choice,), daemon=True).start()

    return click


def respond(choice: str) -> None:
    """Answer the newest open question through the API's own route; a minute at most."""
    from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
    from airflow.api_fastapi.core_api.datamodels.hitl import UpdateHITLDetailPayload
    from airflow.api_fastapi.core_api.routes.public.hitl import update_hitl_detail
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.session import create_session
    from sqlalchemy.exc import OperationalError

    user = SimpleAuthManagerUser(username="ann", role="admin")
    payload = UpdateHITLDetailPayload(chosen_options=[choice])
    for _ in range(300):
        time.sleep(0.2)
        # SQLite is locked while dag.test() writes: the next click gets through.
        with suppress(OperationalError), create_session() as session:
            waiting = session.query(TaskInstance).filter_by(state="awaiting_input").first()
            if waiting is not None:
                update_hitl_detail(
                    waiting.dag_id, waiting.run_id, waiting.task_id, payload, user, session
                )
                return


def test_without_a_project_nothing_is_watched(dagbag: Any) -> None:
    """A Dag that is copied as it is asks nobody for another team's runs."""
    assert dagbag.get_dag(ON_FINISH).schedule is None


@pytest.mark.parametrize("path", sorted(DAGS.glob("*.py")), ids=lambda path: path.stem)
@pytest.mark.usefixtures("airflow_home")
def test_a_password_does_not_get_into_a_dag(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The default of a Param is stored with the Dag: the file is refused, and says what helps."""
    monkeypatch.setenv("WB_OPS_WAREHOUSE", "postgresql://ann:hunter2@db/wandb")
    with pytest.raises(wb_ops.InvalidRequest, match="conn://") as raised:
        runpy.run_path(str(path))
    assert "hunter2" not in str(raised.value)


def test_the_files_have_no_errors(dagbag: Any) -> None:
    """All are parsed, and nothing else is in the folder."""
    assert dagbag.import_errors == {}
    assert set(dagbag.dag_ids) == {EXPORT, ON_FINISH, SHARDED, BACKFILL, APPROVED}


@pytest.mark.parametrize("dag_id", [EXPORT, ON_FINISH, SHARDED, BACKFILL, APPROVED])
def test_the_dags_survive_serialization(dagbag: Any, dag_id: str) -> None:
    """The scheduler sees the retries, the policy's flag and the link of our tasks."""
    from airflow.serialization.serialized_objects import DagSerialization

    dag = DagSerialization.deserialize_dag(DagSerialization.serialize_dag(dagbag.get_dag(dag_id)))
    ours = [task for task in dag.tasks if task.task_type.startswith("Wandb")]
    assert ours
    for task in ours:
        assert task.retries == 4
        assert getattr(task, "has_retry_policy", False) is HAS_RETRY_POLICIES
        assert "W&B project" in [link.name for link in task.operator_extra_links]


@pytest.mark.parametrize("path", sorted(DAGS.glob("*.py")), ids=lambda path: path.stem)
def test_no_template_needs_a_date(path: Path) -> None:
    """In asset-triggered runs `data_interval_start` is not even there."""
    text = path.read_text()
    for name in ("data_interval_start", "data_interval_end", "logical_date", "{{ ds"):
        assert name not in text


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


@pytest.mark.airflow_3_3
def test_an_approved_plan_is_written(
    run_shipped: Callable[..., Any],
    best: Callable[[], dict[str, Any]],
    answer: Callable[[str], None],
    warehouse: str,
) -> None:
    """The best finite value of each finished run goes back into its summary, once approved."""
    assert run_shipped(EXPORT).state == "success"
    rows = wb_ops.connect(warehouse).query("select run_id from history", "ann__demo")
    assert rows.num_rows == 12
    answer("Approve")
    assert run_shipped(APPROVED).state == "success"
    assert best() == {"run0": 0.5, "run1": 0.6, "run2": None}


@pytest.mark.airflow_3_3
def test_an_approved_plan_again_writes_nothing(
    run_shipped: Callable[..., Any], answer: Callable[[str], None], server: Any
) -> None:
    """What is there already is not sent again."""
    run_shipped(EXPORT)
    answer("Approve")
    run_shipped(APPROVED)
    server.requests.clear()
    answer("Approve")
    done = run_shipped(APPROVED)
    plan = done.get_task_instance("plan").xcom_pull(task_ids="plan")
    assert plan["planned"] == {"unchanged": 2}
    assert done.get_task_instance("apply").xcom_pull(task_ids="apply")["written"] == 0
    assert "UpsertBucket" not in server.requests.operations()


def test_nothing_is_written_that_is_not_approved(
    run_shipped: Callable[..., Any],
    best: Callable[[], dict[str, Any]],
    answer: Callable[[str], None],
    server: Any,
) -> None:
    """The task waits for a person, and shows what would be written.

    Where nobody can be asked, as in dag.test() of Airflow 3.2, nothing is written either.
    """
    run_shipped(EXPORT)
    server.requests.clear()
    if HAS_RETRY_POLICIES:
        answer("Reject")
    done = run_shipped(APPROVED)
    states = {task.task_id: task.state for task in done.get_task_instances()}
    asked = ("success", "skipped") if HAS_RETRY_POLICIES else ("failed", "upstream_failed")
    assert states == {"plan": "success", **dict(zip(("approve", "apply"), asked, strict=True))}
    table = done.get_task_instance("plan").xcom_pull(task_ids="plan")["table"]
    assert "| run1 | best_val_acc |  | 0.6 |" in table
    assert "UpsertBucket" not in server.requests.operations()
    assert set(best().values()) == {None}


@pytest.mark.parametrize("date", [None, datetime(2026, 1, 31, 5, tzinfo=UTC)], ids=str)
@pytest.mark.usefixtures("connection")
def test_every_dag_runs_with_and_without_a_date(
    airflow_home: Path,
    monkeypatch: pytest.MonkeyPatch,
    answer: Callable[[str], None],
    warehouse: str,
    tmp_path: Path,
    date: datetime | None,
) -> None:
    """Asset-triggered runs have neither logical date nor data interval; exports come first."""
    from airflow.dag_processing.dagbag import DagBag

    # The Dag on finished runs reads its project where it is parsed, because an asset has one.
    monkeypatch.setenv("WANDB_ENTITY", "ann")
    monkeypatch.setenv("WANDB_PROJECT", "demo")
    bag = DagBag(dag_folder=DAGS, bundle_name="dags-folder")
    assert bag.import_errors == {}
    results = {}
    for dag_id in (ON_FINISH, SHARDED, EXPORT, BACKFILL, *ASKING):
        dag = bag.get_dag(dag_id)
        conf = {"warehouse": warehouse, "staging": str(tmp_path), "entity": "ann"}
        if dag_id == APPROVED:
            answer("Approve")
        done = dag.test(logical_date=date, run_conf={k: conf[k] for k in conf if k in dag.params})
        assert done.state == "success", dag_id
        last = dag.tasks[-1].task_id
        results[dag_id] = done.get_task_instance(last).xcom_pull(task_ids=last)
    assert results[ON_FINISH]["history_rows"] == 12
    assert results[SHARDED]["unchanged"] == results[EXPORT]["unchanged"] == 3
    assert results[BACKFILL]["written"] == 2
    assert [results[dag_id]["written"] for dag_id in ASKING] == [0] * len(ASKING)


def test_a_sharded_export_writes_every_row(run_shipped: Callable[..., Any], warehouse: str) -> None:
    """Plan, a task for each part, commit; and again over nothing that is new."""
    for rows in (12, 0):
        done = run_shipped(SHARDED)
        assert done.state == "success"
        result = done.get_task_instance("commit").xcom_pull(task_ids="commit")
        assert result["history_rows"] == rows
    found = wb_ops.connect(warehouse).query("select run_id from history", "ann__demo")
    assert found.num_rows == 12


def test_a_column_is_only_a_name(run_shipped: Callable[..., Any]) -> None:
    """Params go into SQL, so their form is checked before a run begins."""
    with pytest.raises(ValueError, match="does not match"):
        run_shipped(BACKFILL, params={"column": 'x"); drop table runs; --'})
