"""`@task.wandb`: a function that is given a W&B client."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from wb_ops.airflow.retry_policy import HAS_RETRY_POLICIES
from wb_ops.devserver import Fault, Matcher, Responder

pytestmark = pytest.mark.usefixtures("connection")


@pytest.fixture
def run_function(run_dag: Callable[..., Any]) -> Callable[..., Any]:
    """Run a Dag of one decorated function; its task instance when it has ended."""

    def run(function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        from datetime import timedelta

        from airflow.sdk import DAG, task

        with DAG(f"decorated_{function.__name__}", schedule=None) as dag:
            task.wandb(task_id="task", retry_delay=timedelta(seconds=0.1), **options)(function)(
                *args
            )
        return run_dag(dag).get_task_instance("task")

    return run


def test_the_function_gets_a_client(run_function: Callable[..., Any]) -> None:
    """Beside its own arguments, and Airflow's context if it asks for it."""

    def states(project: str, api: Any, ds: Any = None, *, order: str = "+created_at") -> list[str]:
        return [run.state for run in api.runs(project, order=order)]

    task = run_function(states, "ann/demo")
    assert task.state == "success"
    assert task.xcom_pull(task_ids="task") == ["finished", "finished", "running"]


def test_it_retries_as_our_operators_do(run_function: Callable[..., Any], server: Any) -> None:
    """The policy and four retries are its defaults."""

    def count(api: Any) -> int:
        return len(api.runs("ann/demo"))

    server.faults.add(Fault(Matcher(operation="Runs"), Responder.rate_limited(0.2)))
    task = run_function(count)
    assert (task.state, task.try_number, task.max_tries) == ("success", 2, 4)


@pytest.mark.parametrize("how", ["expand", "expand_kwargs", "partial", "override"])
@pytest.mark.parametrize("given", ["nothing", "default_args", "arguments", "none"])
def test_mapped_it_has_our_retries_too(given: str, how: str) -> None:
    """Arguments, then `default_args`, then ours; the scheduler reads them from the stored Dag."""
    from airflow import sdk
    from airflow.sdk import DAG, task
    from airflow.serialization.serialized_objects import DagSerialization

    theirs = sdk.ExceptionRetryPolicy([]) if HAS_RETRY_POLICIES else None
    policy, none = ({"retry_policy": one} if HAS_RETRY_POLICIES else {} for one in (theirs, None))
    of_task = {"retries": 2, **policy} if given == "arguments" else {}
    of_task = {"retries": 0, **none} if given == "none" else of_task
    of_dag = {"retries": 1, **policy} if given == "default_args" else {}
    with DAG("decorated_defaults", schedule=None, default_args=of_dag) as dag:

        @task.wandb(**of_task)
        def count(project: str, api: Any, state: str = "finished") -> int:
            return len(api.runs(project, filters={"state": state}))

        if how == "expand_kwargs":
            count.expand_kwargs([{"project": "ann/demo"}])
        elif how == "partial":
            count.partial(state="failed").expand(project=["ann/demo"])
        elif how == "override":
            count.override(task_id="count").expand(project=["ann/demo"])
        else:
            count.expand(project=["ann/demo"])
    wanted = {"nothing": 4, "default_args": 1, "arguments": 2, "none": 0}[given]
    made = dag.get_task("count")
    stored = DagSerialization.deserialize_dag(DagSerialization.serialize_dag(dag)).get_task("count")
    assert (made.retries, stored.retries) == (wanted, wanted)
    if HAS_RETRY_POLICIES:
        assert (made.retry_policy is theirs, stored.has_retry_policy) == (
            "arg" in given,
            given != "none",
        )


def test_it_links_to_the_project_and_to_the_run_that_it_names(
    run_function: Callable[..., Any], set_connection: Callable[..., None], server: Any
) -> None:
    """The connection's project at once; the run, which only the function knows, by its push."""
    from wb_ops.airflow import WandbRunLink

    def look(api: Any, ti: Any = None) -> None:
        run = api.run("ann/demo/run1")
        ti.xcom_push(key=WandbRunLink.xcom_key, value=run.url)

    set_connection(extra={"project": "demo"})
    task = run_function(look)
    pages = [
        task.xcom_pull(task_ids="task", key=f"wandb_{what}_url") for what in ("project", "run")
    ]
    assert pages == [f"{server.url}/ann/demo", f"{server.url}/ann/demo/runs/run1"]


def test_mapped_it_is_decided_by_each_error(run_dag: Callable[..., Any], server: Any) -> None:
    """As our operators are, with nothing said."""
    from datetime import timedelta

    from airflow.sdk import DAG, task

    with DAG("decorated_mapped", schedule=None) as dag:

        @task.wandb(retry_delay=timedelta(seconds=0.1))
        def count(project: str, api: Any) -> int:
            return len(api.runs(project))

        count.expand(project=["ann/demo", "ann/missing"])
    server.faults.add(Fault(Matcher(operation="Runs"), Responder.rate_limited(0.2)))
    found = sorted(run_dag(dag).get_task_instances(), key=lambda one: one.map_index)
    assert [one.state for one in found] == ["success", "failed"]
    # Which one meets the limit is not defined; as it lasts a moment, both may.
    assert {one.try_number for one in found} in ({1, 2}, {2})


def test_it_fails_at_once_where_nothing_can_heal(run_function: Callable[..., Any]) -> None:
    """NotFound is NEVER."""

    def missing(api: Any) -> None:
        api.run("ann/demo/nowhere")

    assert run_function(missing).try_number == 1


def test_it_waits_in_the_triggerer(run_function: Callable[..., Any], server: Any) -> None:
    """A limit burns no retry where the task may defer."""

    def deferred(api: Any) -> int:
        return len(api.runs("ann/demo"))

    server.faults.add(Fault(Matcher(operation="Runs"), Responder.rate_limited(0.2), times=2))
    task = run_function(deferred, deferrable=True, retries=0)
    assert (task.state, task.try_number) == ("success", 1)
    assert task.xcom_pull(task_ids="task") == 3


def test_a_bug_is_left_to_the_task(run_function: Callable[..., Any]) -> None:
    """What is not ours is not explained away; the connection is a template."""

    def leave(api: Any) -> None:
        raise KeyError("a bug")

    task = run_function(leave, retries=0, wandb_conn_id="{{ 'wandb_default' }}")
    assert (task.state, task.try_number) == ("failed", 1)


def test_a_function_without_the_argument_is_refused_when_parsed(
    run_function: Callable[..., Any],
) -> None:
    """Not when the task runs."""

    def nothing() -> None: ...

    with pytest.raises(TypeError, match="needs an argument named api"):
        run_function(nothing)
