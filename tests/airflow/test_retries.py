"""The table of errors, shown by dag.test(): what is retried, when, and what ends at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from wb_ops.airflow.retry_policy import HAS_RETRY_POLICIES
from wb_ops.devserver import Fault, Matcher, Responder

LISTING = Matcher(operation="Runs")


@pytest.fixture
def export(
    run_task: Callable[..., Any], set_connection: Callable[..., None], warehouse: str
) -> Callable[..., Any]:
    """Run one export task over a connection with these fields; its ended task instance."""
    from wb_ops.airflow import WandbExportOperator

    def run(fields: dict[str, Any] | None = None, **arguments: Any) -> Any:
        set_connection(**fields or {})
        given = {"project": "demo", "warehouse": warehouse, **arguments}
        return run_task(WandbExportOperator, **given)

    return run


@pytest.fixture
def earlier_tries() -> Callable[[Any], list[Any]]:
    """The records of a task instance's tries before the last one."""

    def read(task: Any) -> list[Any]:
        from airflow.models.taskinstancehistory import TaskInstanceHistory
        from airflow.settings import Session

        found = Session.query(TaskInstanceHistory).filter_by(
            dag_id=task.dag_id, run_id=task.run_id, map_index=task.map_index
        )
        return list(found.order_by(TaskInstanceHistory.try_number))

    return read


def decisions(tries: list[Any]) -> list[tuple[Any, Any]]:
    """What the policy made of each try, as Airflow keeps it."""
    names = ("retry_delay_override", "retry_reason")
    return [tuple(getattr(one, name, None) for name in names) for one in tries]


@pytest.mark.parametrize("key", ["w" * 40, "short"])
def test_a_wrong_key_ends_at_the_first_try(export: Callable[..., Any], key: str) -> None:
    """AuthenticationFailed is NEVER, whether the server or its form betrays the key."""
    task = export({"password": key})
    assert (task.state, task.try_number, task.max_tries) == ("failed", 1, 4)
    shown = task.xcom_pull(task_ids="task", key="retry_reason")
    if HAS_RETRY_POLICIES:
        assert shown.endswith("AuthenticationFailed: a retry cannot help")
    else:
        assert shown is None


def test_a_missing_project_ends_at_the_first_try(export: Callable[..., Any], server: Any) -> None:
    """NotFound is NEVER; one request is enough to know."""
    task = export(project="missing")
    assert (task.state, task.try_number) == ("failed", 1)
    assert len(server.requests) == 1


def test_a_long_wait_is_left_to_airflow(
    export: Callable[..., Any], server: Any, earlier_tries: Callable[[Any], list[Any]]
) -> None:
    """Retry-After above max_wait_s becomes the delay of the next try, with its reason.

    Before Airflow 3.3 the task's own delay is waited, without a word.
    """
    server.faults.add(Fault(LISTING, Responder.rate_limited(2)))
    shown = []

    def look(context: Any) -> None:
        shown.append(context["ti"].xcom_pull(task_ids="task", key="retry_reason"))

    task = export(on_retry_callback=look)
    tries = decisions(earlier_tries(task))
    assert task.state == "success"
    # Its page shows it while it waits, and no longer.
    assert task.xcom_pull(task_ids="task", key="retry_reason") is None
    if not HAS_RETRY_POLICIES:
        # A tenth of a second is tried again and again.
        assert set(tries) == {(None, None)}
        assert set(shown) == {None}
        return
    assert tries == [(2.0, "W&B 429 Retry-After=2s")]
    assert shown == ["W&B 429 Retry-After=2s"]


def test_a_short_wait_is_slept_in_the_task(export: Callable[..., Any], server: Any) -> None:
    """Retry-After within max_wait_s costs no try."""
    server.faults.add(Fault(LISTING, Responder.rate_limited(0.1)))
    task = export({"extra": {"max_wait_s": 5}})
    assert (task.state, task.try_number) == ("success", 1)


def test_a_limit_that_never_ends_is_bounded(export: Callable[..., Any], server: Any) -> None:
    """The task's retries bound what a policy asks for; a try costs one request."""
    server.faults.add(Fault(LISTING, Responder.rate_limited(1), times=None))
    task = export(retries=2)
    assert (task.state, task.try_number) == ("failed", 3)
    # Without a policy a try may come too early, and then it is not even sent.
    assert (3 if HAS_RETRY_POLICIES else 1) <= len(server.requests) <= 3


def test_bad_answers_are_backed_off_from(
    export: Callable[..., Any], server: Any, earlier_tries: Callable[[Any], list[Any]]
) -> None:
    """5xx and cut bodies that outlast the client's own attempts; the reason is kept."""
    server.faults.add(Fault(LISTING, Responder.error(502), times=3))
    server.faults.add(Fault(LISTING, Responder.cut_body(), times=3))
    task = export()
    assert (task.state, task.try_number) == ("success", 2)
    told = (0.1, "W&B MalformedResponse: backing off 0.1s") if HAS_RETRY_POLICIES else (None, None)
    assert decisions(earlier_tries(task)) == [told]


def test_mapped_tasks_have_the_policy(
    run_dag: Callable[..., Any],
    connection: None,
    server: Any,
    warehouse: str,
    earlier_tries: Callable[[Any], list[Any]],
) -> None:
    """Under expand, each map index is decided by its own error.

    Before Airflow 3.3 mapped tasks have only the retries that `.partial()` gives them.
    """
    from airflow.sdk import DAG

    from wb_ops.airflow import WandbExportOperator

    server.faults.add(Fault(LISTING, Responder.rate_limited(1)))
    with DAG("mapped_exports", schedule=None) as dag:
        WandbExportOperator.partial(task_id="task", warehouse=warehouse).expand(
            project=["demo", "missing"]
        )
    tasks = sorted(run_dag(dag).get_task_instances(), key=lambda task: task.map_index)
    if not HAS_RETRY_POLICIES:
        assert [(task.state, task.try_number) for task in tasks] == [("failed", 1)] * 2
        return
    assert [task.state for task in tasks] == ["success", "failed"]
    delays = [one.retry_delay_override for task in tasks for one in earlier_tries(task)]
    assert delays
    assert all(delay is not None and 0 < delay <= 1 for delay in delays)


@pytest.mark.airflow_3_3
def test_a_users_policy_replaces_ours(export: Callable[..., Any], server: Any) -> None:
    """Where the task has a policy of its own, ours has no say."""
    from airflow.sdk import ExceptionRetryPolicy, RetryAction, RetryRule

    server.faults.add(Fault(LISTING, Responder.rate_limited(1), times=None))
    fail_all = ExceptionRetryPolicy([RetryRule(Exception, RetryAction.FAIL)])
    task = export(retry_policy=fail_all)
    assert (task.state, task.try_number) == ("failed", 1)
