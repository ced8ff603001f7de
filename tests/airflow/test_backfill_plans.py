"""A backfill in two tasks: what is approved is what is written."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from wb_ops.devserver import Fault, Matcher, Responder
from wb_ops.errors import InvalidRequest

pytestmark = pytest.mark.usefixtures("connection")
WRITE = Matcher(operation="UpsertBucket")


def steps(run: Any) -> dict[str, Any]:
    return {"steps": run.history_table().num_rows, "note": "a|b\nc"}


@pytest.fixture
def plan(run_task: Callable[..., Any], warehouse: str) -> Callable[..., Any]:
    """Run a planning task; its result, as JSON gives it to the next one."""
    from wb_ops.airflow import WandbPlanBackfillOperator

    def run(**arguments: Any) -> dict[str, Any]:
        given = {"project": "demo", "warehouse": warehouse, "python_callable": steps, **arguments}
        task = run_task(WandbPlanBackfillOperator, **given)
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


def summary(server: Any, run_id: str) -> dict[str, Any]:
    from wb_ops.airflow import WandbHook

    with WandbHook().get_conn() as api:
        return dict(api.run(f"ann/demo/{run_id}").summary)


def test_a_plan_says_what_would_be_written(plan: Callable[..., Any], server: Any) -> None:
    """Old and new of each value, also as a table for people; nothing is written."""
    document = plan()
    values = [
        [value[name] for name in ("run_id", "key", "old", "new")] for value in document["values"]
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


@pytest.mark.parametrize("document", ["", "[]", {}, {"values": [{"run_id": "run0"}]}], ids=str)
def test_anything_else_is_no_plan(apply: Callable[..., Any], server: Any, document: Any) -> None:
    """It fails at the first try and before the first request."""
    task = apply(document)
    assert (task.state, task.try_number) == ("failed", 1)
    assert len(server.requests) == 0


@pytest.fixture
def large_plan() -> Callable[[int], Any]:
    """A plan with this many values."""
    import wb_ops
    from wb_ops.backfill import PlannedValue

    def make(count: int) -> Any:
        request = wb_ops.BackfillRequest("ann", "demo", sql="select 1")
        values = (PlannedValue(f"run{at}", "k", None, "x" * 90, "set") for at in range(count))
        return wb_ops.BackfillPlan(request, "bf", tuple(values))

    return make


def test_a_plan_that_does_not_fit_into_xcom_is_refused(large_plan: Callable[[int], Any]) -> None:
    """With the remedy."""
    from wb_ops.airflow.operators.plan_documents import plan_document

    with pytest.raises(InvalidRequest, match="WandbBackfillSummaryOperator"):
        plan_document(large_plan(5000))


def test_the_table_is_short(large_plan: Callable[[int], Any]) -> None:
    """A person reads it."""
    from wb_ops.airflow.operators.plan_documents import plan_document

    document = plan_document(large_plan(150))
    assert len(document["values"]) == 150
    assert document["table"].splitlines()[-1] == "and 50 more"
    assert max(len(line) for line in document["table"].splitlines()) < 120


def test_an_approved_value_of_a_running_run_is_written(
    plan: Callable[..., Any], apply: Callable[..., Any], server: Any
) -> None:
    """What the plan was asked for travels with it: the run still runs when it is applied."""
    document = plan(include_running=True)
    assert "run2" in {value["run_id"] for value in document["values"]}
    assert apply(document).state == "success"
    assert summary(server, "run2")["note"] == "a|b\nc"
