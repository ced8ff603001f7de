"""A backfill in two tasks: what is approved is what is written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import wb_ops
from wb_ops.devserver import Fault, Matcher, Responder

pytestmark = pytest.mark.usefixtures("connection")
WRITE = Matcher(operation="UpsertBucket")


def steps(run: Any) -> dict[str, Any]:
    return {"steps": run.history_table().num_rows, "note": "a|b\nc"}


@pytest.fixture
def staging(tmp_path: Path) -> str:
    """The folder for plans."""
    return str(tmp_path / "staging")


@pytest.fixture
def plan(run_task: Callable[..., Any], warehouse: str, staging: str) -> Callable[..., Any]:
    """Run a planning task; its result, as JSON gives it to the next one."""
    from wb_ops.airflow import WandbPlanBackfillOperator

    def run(**arguments: Any) -> dict[str, Any]:
        given = {"project": "demo", "warehouse": warehouse, "staging": staging, **arguments}
        task = run_task(WandbPlanBackfillOperator, **{"python_callable": steps, **given})
        assert task.state == "success"
        document: dict[str, Any] = json.loads(json.dumps(task.xcom_pull(task_ids="task")))
        return document

    return run


@pytest.fixture
def apply(run_task: Callable[..., Any], warehouse: str) -> Callable[..., Any]:
    """Run an applying task; its task instance when it has ended."""
    from wb_ops.airflow import WandbApplyBackfillOperator

    def run(document: Any, **arguments: Any) -> Any:
        return run_task(WandbApplyBackfillOperator, plan=document, warehouse=warehouse, **arguments)

    return run


def values_of(document: dict[str, Any]) -> list[dict[str, Any]]:
    """What the plan's file says would be written."""
    found: list[dict[str, Any]] = json.loads(Path(document["plan_uri"]).read_text())["values"]
    return found


def summary(server: Any, run_id: str) -> dict[str, Any]:
    from wb_ops.airflow import WandbHook

    with WandbHook().get_conn() as api:
        return dict(api.run(f"ann/demo/{run_id}").summary)


def test_a_plan_says_what_it_leaves_alone_and_why(plan: Callable[..., Any], warehouse: str) -> None:
    """Whoever approves it sees the run that still logs."""
    from wb_ops.airflow import WandbHook

    with WandbHook().get_conn() as api:
        request, target = wb_ops.ExportRequest("ann", "demo"), wb_ops.connect(warehouse)
        wb_ops.execute_export(wb_ops.plan_export(request, api, target), api, target)
    sql = "select run_id, max(_step) as last from history group by run_id"
    lines = plan(python_callable=None, sql=sql)["table"].splitlines()
    (left,) = [line for line in lines if line.startswith("| run2 |")]
    assert "| skipped: running |" in left


def test_a_plan_says_what_would_be_written(plan: Callable[..., Any], server: Any) -> None:
    """Old and new of each value, also as a table for people; nothing is written."""
    document = plan()
    values = [
        [value[name] for name in ("run_id", "key", "old", "new")] for value in values_of(document)
    ]
    assert values == [
        ["run0", "steps", None, "4"],
        ["run0", "note", None, '"a|b\\nc"'],
        ["run1", "steps", None, "4"],
        ["run1", "note", None, '"a|b\\nc"'],
    ]
    assert document["planned"] == {"set": 4}
    assert "| run0 | steps |  | 4 |" in document["table"]
    assert '| run0 | note |  | "a\\|b\\nc" |' in document["table"]
    assert "UpsertBucket" not in server.requests.operations()


def test_what_was_planned_is_written(
    plan: Callable[..., Any], apply: Callable[..., Any], server: Any
) -> None:
    """Under the plan's id, with the link to the project."""
    document = plan(filters={"name": "run1"})
    task = apply(document)
    result = task.xcom_pull(task_ids="task")
    assert (result["written"], result["runs"], result["conflicts"]) == (2, 1, 0)
    assert result["backfill_id"] == document["backfill_id"]
    assert summary(server, "run1")["steps"] == 4
    assert "steps" not in summary(server, "run0")
    assert task.xcom_pull(task_ids="task", key="wandb_project_url") == f"{server.url}/ann/demo"


def test_what_changed_since_the_plan_is_left_alone(
    plan: Callable[..., Any], apply: Callable[..., Any], server: Any
) -> None:
    """Nobody has approved to overwrite that."""
    document = plan()
    server.edit_run("ann", "demo", "run0", summary={"steps": 99})
    result = apply(json.dumps(document)).xcom_pull(task_ids="task")
    assert (result["written"], result["conflicts"]) == (3, 1)
    assert summary(server, "run0")["steps"] == 99


def test_a_retry_converges(
    plan: Callable[..., Any], apply: Callable[..., Any], server: Any
) -> None:
    """A write that was not carried out is written by the next try, from the same plan."""
    document = plan()
    server.faults.add(Fault(WRITE, Responder.error(502)))
    task = apply(document)
    assert (task.state, task.try_number) == ("success", 2)
    assert summary(server, "run0")["steps"] == summary(server, "run1")["steps"] == 4


def test_a_plan_applied_twice_changes_nothing(
    plan: Callable[..., Any], apply: Callable[..., Any], server: Any
) -> None:
    """As when a cleared task runs again."""
    document = plan()
    apply(document)
    before = summary(server, "run0")
    result = apply(document).xcom_pull(task_ids="task")
    assert result["conflicts"] == 0
    assert summary(server, "run0") == before


def test_xcom_has_where_the_plan_is_and_no_values(plan: Callable[..., Any]) -> None:
    """The metadata database holds a few hundred bytes however large the plan is."""
    document = plan()
    table = document.pop("table")
    assert set(document) == {
        "plan_uri", "sha256", "backfill_id", "entity", "project", "dataset", "target", "planned",
    }  # fmt: skip
    assert len(json.dumps(document)) < 1000
    assert "run1" in table


def test_a_plan_that_was_changed_after_it_was_approved_is_refused(
    plan: Callable[..., Any], apply: Callable[..., Any], server: Any
) -> None:
    """Also where the file is a sound plan by itself: what was approved is what is written."""
    first, second = plan(), plan(filters={"name": "run1"})
    Path(first["plan_uri"]).write_bytes(Path(second["plan_uri"]).read_bytes())
    server.requests.clear()
    task = apply(first)
    assert (task.state, task.try_number) == ("failed", 1)
    assert len(server.requests) == 0


def test_a_plan_whose_file_is_gone_is_refused(
    plan: Callable[..., Any], apply: Callable[..., Any]
) -> None:
    """Planning again is all that helps."""
    document = plan()
    Path(document["plan_uri"]).unlink()
    task = apply(document)
    assert (task.state, task.try_number) == ("failed", 1)


@pytest.mark.parametrize("document", ["", "[]", {}, {"values": [{"run_id": "run0"}]}], ids=str)
def test_anything_else_is_no_plan(apply: Callable[..., Any], server: Any, document: Any) -> None:
    """It fails at the first try and before the first request."""
    task = apply(document)
    assert (task.state, task.try_number) == ("failed", 1)
    assert len(server.requests) == 0


@pytest.fixture
def large_plan() -> Callable[..., Any]:
    """A plan with this many values to set, and this many that are skipped."""
    from wb_ops.backfill import PlannedValue

    def make(to_set: int, skipped: int) -> Any:
        request = wb_ops.BackfillRequest("ann", "demo", sql="select 1")
        values = [
            PlannedValue(f"run{at}", "k", None, '"' + "x" * 90 + '"', "set") for at in range(to_set)
        ]
        values += [
            PlannedValue(f"old{at}", "k", "1", None, "skipped", "read|only")
            for at in range(skipped)
        ]
        return wb_ops.BackfillPlan(request, "bf", tuple(values))

    return make


def test_a_large_plan_is_a_large_file_and_a_short_table(
    large_plan: Callable[..., Any], staging: str
) -> None:
    """A person reads the table; it says what is left alone, and why."""
    from wb_ops.airflow.operators.plan_documents import load_stored_plan, store_plan

    document = store_plan(large_plan(20_000, 70), staging)
    lines = document["table"].splitlines()
    assert {"and 19900 more", "and 20 more"} <= set(lines)
    assert "| old0 | k | skipped: read\\|only | 1 |" in lines
    assert len(lines) < 170
    assert max(map(len, lines)) < 130
    assert len(load_stored_plan(json.dumps(document)).to_set) == 20_000


def test_an_approved_value_of_a_running_run_is_written(
    plan: Callable[..., Any], apply: Callable[..., Any], server: Any
) -> None:
    """What the plan was asked for travels with it: the run still runs when it is applied."""
    document = plan(include_running=True)
    assert "run2" in {value["run_id"] for value in values_of(document)}
    assert apply(document).state == "success"
    assert summary(server, "run2")["note"] == "a|b\nc"
