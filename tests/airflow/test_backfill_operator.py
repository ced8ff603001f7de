"""What a backfill task writes into W&B, and what it leaves alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

import wb_ops
from wb_ops.devserver import Fault, Matcher, Responder

pytestmark = pytest.mark.usefixtures("connection")
WRITE = Matcher(operation="UpsertBucket")
SQL = "select run_id, max(_step) as last from history group by run_id"


@pytest.fixture
def backfill(run_task: Callable[..., Any], warehouse: str) -> Callable[..., Any]:
    """Run one backfill task; its task instance when it has ended."""
    from wb_ops.airflow import WandbBackfillSummaryOperator

    def run(**arguments: Any) -> Any:
        given = {"project": "demo", "warehouse": warehouse, **arguments}
        return run_task(WandbBackfillSummaryOperator, **given)

    return run


@pytest.fixture
def exported(connection: None, warehouse: str) -> None:
    """The project is in the warehouse."""
    from wb_ops.airflow import WandbHook

    with WandbHook().get_conn() as api:
        request = wb_ops.ExportRequest(entity="ann", project="demo")
        target = wb_ops.connect(warehouse)
        wb_ops.execute_export(wb_ops.plan_export(request, api, target), api, target)


@pytest.fixture
def summaries(connection: None) -> Callable[[str], dict[str, Any]]:
    """Read one summary key of each run from W&B; runs without it are missing."""
    from wb_ops.airflow import WandbHook

    def read(key: str) -> dict[str, Any]:
        with WandbHook().get_conn() as api:
            runs = list(api.runs("ann/demo"))
            return {run.id: run.summary[key] for run in runs if key in run.summary}

    return read


def steps(run: Any) -> Mapping[str, Any]:
    return {"steps": run.history_table().num_rows}


@pytest.mark.usefixtures("exported")
def test_sql_values_reach_the_summaries(
    backfill: Callable[..., Any], summaries: Callable[[str], dict[str, Any]]
) -> None:
    """One value a run; the run that still logs is left alone."""
    task = backfill(sql=SQL)
    assert task.state == "success"
    result = task.xcom_pull(task_ids="task")
    assert (result["written"], result["runs"], result["skipped"]) == (2, 2, 1)
    assert result["planned"] == {"set": 2, "skipped (running)": 1}
    assert summaries("last") == {"run0": 3, "run1": 3}


@pytest.mark.usefixtures("exported")
def test_sql_may_be_a_file(
    run_dag: Callable[..., Any],
    summaries: Callable[[str], dict[str, Any]],
    warehouse: str,
    tmp_path: Path,
) -> None:
    """A name that ends in .sql is looked up beside the Dag, and rendered."""
    from airflow.sdk import DAG

    from wb_ops.airflow import WandbBackfillSummaryOperator

    (tmp_path / "last.sql").write_text(SQL.replace("last", "{{ params.key }}"))
    with DAG(
        "sql_file", schedule=None, template_searchpath=str(tmp_path), params={"key": "k"}
    ) as dag:
        WandbBackfillSummaryOperator(
            task_id="task", sql="last.sql", project="demo", warehouse=warehouse
        )
    assert run_dag(dag).state == "success"
    assert summaries("k") == {"run0": 3, "run1": 3}


def test_a_function_of_the_run_gives_the_values(
    backfill: Callable[..., Any], summaries: Callable[[str], dict[str, Any]]
) -> None:
    """It gets the run with its full history; the filters say which runs."""
    task = backfill(python_callable=steps, filters={"name": "run1"})
    assert task.state == "success"
    assert summaries("steps") == {"run1": 4}


def test_a_recipe_is_one_line(
    backfill: Callable[..., Any], summaries: Callable[[str], dict[str, Any]]
) -> None:
    """It reads the history from W&B: no export before, no SQL."""
    task = backfill(recipe='best("val_acc", mode="max")')
    assert task.xcom_pull(task_ids="task")["written"] == 4
    assert summaries("best_val_acc") == {"run0": 0.5, "run1": 0.6}
    assert summaries("best_val_acc_step") == {"run0": 1, "run1": 1}


def test_a_dry_run_writes_nothing(
    backfill: Callable[..., Any], summaries: Callable[[str], dict[str, Any]]
) -> None:
    """The flag may be a template; the plan is in the result."""
    task = backfill(python_callable=steps, dry_run="{{ true }}")
    result = task.xcom_pull(task_ids="task")
    assert (result["dry_run"], result["planned"]) == (True, {"set": 2})
    assert summaries("steps") == {}


def test_the_plan_is_logged(
    backfill: Callable[..., Any], capfd: pytest.CaptureFixture[str]
) -> None:
    """Old and new value of each run, before anything is written."""
    backfill(python_callable=steps, dry_run=True)
    assert "run0  steps: (none) -> 4" in capfd.readouterr().out


def test_only_missing_values_are_written_where_asked_to(
    backfill: Callable[..., Any], summaries: Callable[[str], dict[str, Any]], server: Any
) -> None:
    """policy="only_missing" leaves what is there."""
    server.edit_run("ann", "demo", "run0", summary={"steps": 99})
    backfill(python_callable=steps, policy="only_missing")
    assert summaries("steps") == {"run0": 99, "run1": 4}


def test_a_file_gives_the_values_and_the_target_says_where(
    backfill: Callable[..., Any], tmp_path: Path
) -> None:
    """As templates, as all the rest; also into the run that still logs where asked to."""
    from wb_ops.airflow import WandbHook

    (tmp_path / "values.csv").write_text("run_id,seed\nrun1,7\nrun2,8\n")
    task = backfill(
        file="{{ params.folder }}/values.csv",
        target="{{ 'config' }}",
        include_running="{{ true }}",
        include_incomplete="{{ true }}",
        safe="{{ true }}",
        max_changes="{{ 2 }}",
        params={"folder": str(tmp_path)},
    )
    result = task.xcom_pull(task_ids="task")
    assert (result["written"], result["failed"], result["unverified"]) == (2, 0, 0)
    with WandbHook().get_conn() as api:
        assert {run.id: run.config.get("seed") for run in api.runs("ann/demo")} == {
            "run0": None,
            "run1": 7,
            "run2": 8,
        }


def test_more_changes_than_allowed_are_not_written(
    backfill: Callable[..., Any], summaries: Callable[[str], dict[str, Any]]
) -> None:
    """The task fails at once: no retry makes them fewer."""
    task = backfill(python_callable=steps, max_changes="1")
    assert (task.state, task.try_number) == ("failed", 1)
    assert summaries("steps") == {}


def test_a_value_that_is_refused_fails_the_task_and_is_counted(
    backfill: Callable[..., Any], server: Any
) -> None:
    """For the task that comes after it, whatever its trigger rule is."""
    server.faults.add(Fault(WRITE, Responder.error(403), times=None))
    task = backfill(python_callable=steps, filters={"name": "run1"})
    assert (task.state, task.try_number) == ("failed", 1)
    counts = task.xcom_pull(task_ids="task", key="backfill_report")
    assert (counts["written"], counts["failed"], counts["unverified"]) == (0, 1, 0)


@pytest.mark.parametrize(
    ("answer", "tries", "writes"),
    [(Responder.error(502), 2, 2), (Responder.lost_answer(), 1, 1)],
    ids=["not carried out", "carried out"],
)
def test_a_lost_answer_to_a_write_is_looked_up(
    backfill: Callable[..., Any],
    summaries: Callable[[str], dict[str, Any]],
    server: Any,
    answer: Responder,
    tries: int,
    writes: int,
) -> None:
    """VERIFY: what is there is not written again; what is not, the next try plans anew."""
    server.faults.add(Fault(WRITE, answer))
    task = backfill(python_callable=steps)
    assert (task.state, task.try_number) == ("success", tries)
    operations = server.requests.operations()
    assert sum(operation == "UpsertBucket" for operation in operations) == writes
    assert summaries("steps") == {"run0": 4, "run1": 4}


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"sql": SQL, "python_callable": steps},
        {"recipe": 'best("val_acc")', "python_callable": steps},
        {"recipe": "best_of_all()"},
        {"sql": "select 1 as run_id"},
        {"python_callable": steps, "policy": "sometimes"},
        {"python_callable": steps, "dry_run": "perhaps"},
        {"python_callable": steps, "target": "nowhere"},
        {"python_callable": steps, "max_changes": "few"},
    ],
    # Not the values: they name an address, which differs between processes.
    ids=[
        "nothing",
        "two sources",
        "recipe and callable",
        "recipe",
        "no value",
        "policy",
        "dry_run",
        "target",
        "max_changes",
    ],
)
@pytest.mark.usefixtures("exported")
def test_a_wrong_argument_fails_at_the_first_try(
    backfill: Callable[..., Any], wrong: dict[str, Any]
) -> None:
    """InvalidRequest is NEVER."""
    task = backfill(**wrong)
    assert (task.state, task.try_number) == ("failed", 1)


def test_the_argument_dry_run_leaves_airflows_method_alone() -> None:
    """`airflow tasks test --dry-run` calls BaseOperator.dry_run()."""
    from wb_ops.airflow import WandbBackfillSummaryOperator

    task = WandbBackfillSummaryOperator(task_id="task", warehouse="duckdb:///x", dry_run=True)
    task.dry_run()
