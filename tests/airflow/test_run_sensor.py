"""A task that waits for a W&B run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from wb_ops.devserver import Fault, Matcher, Responder
from wb_ops.errors import InvalidRequest

pytestmark = pytest.mark.usefixtures("connection")
RUN = Matcher(operation="Run")
BOTH = pytest.mark.parametrize("deferrable", [False, True], ids=["poking", "deferred"])


@pytest.fixture
def wait(run_task: Callable[..., Any]) -> Callable[..., Any]:
    """Run one sensor; its task instance when it has ended."""
    from wb_ops.airflow import WandbRunSensor

    def run(run_id: str, **arguments: Any) -> Any:
        given = {"run": f"ann/demo/{run_id}", "poke_interval": 0.05, "timeout": 20, **arguments}
        return run_task(WandbRunSensor, **given)

    return run


def end_at_third_look(server: Any, state: str) -> None:
    third = Matcher(operation="Run", nth=3)
    end = Fault(third, Responder(), action=lambda: server.set_state("ann", "demo", "run2", state))
    server.faults.add(end)


@BOTH
def test_a_finished_run_is_a_success(
    wait: Callable[..., Any], server: Any, deferrable: bool
) -> None:
    """The result says which run, and where it is; so does the link."""
    end_at_third_look(server, "finished")
    task = wait("run2", deferrable=deferrable)
    url = f"{server.url}/ann/demo/runs/run2"
    assert (task.state, task.try_number) == ("success", 1)
    result = task.xcom_pull(task_ids="task")
    assert result == {"run_id": "run2", "state": "finished", "url": url}
    assert task.xcom_pull(task_ids="task", key="wandb_run_url") == url


@BOTH
@pytest.mark.parametrize("state", ["failed", "crashed", "killed"])
def test_a_bad_end_fails_without_a_retry(
    wait: Callable[..., Any], server: Any, deferrable: bool, state: str
) -> None:
    """The run will not end better by asking again."""
    end_at_third_look(server, state)
    task = wait("run2", deferrable=deferrable)
    assert (task.state, task.try_number, task.max_tries) == ("failed", 1, 4)


@BOTH
def test_a_bad_end_may_skip(wait: Callable[..., Any], server: Any, deferrable: bool) -> None:
    """soft_fail, as in every sensor."""
    end_at_third_look(server, "crashed")
    assert wait("run2", deferrable=deferrable, soft_fail=True).state == "skipped"


@BOTH
def test_a_bad_end_may_skip_at_the_first_look(
    wait: Callable[..., Any], server: Any, deferrable: bool
) -> None:
    """Which is the worker's in both modes."""
    server.set_state("ann", "demo", "run2", "killed")
    assert wait("run2", deferrable=deferrable, soft_fail=True).state == "skipped"


@BOTH
def test_a_crashed_run_may_be_waited_for(
    wait: Callable[..., Any], server: Any, deferrable: bool
) -> None:
    """It can come back: the states that count are arguments."""
    server.set_state("ann", "demo", "run2", "crashed")
    end_at_third_look(server, "finished")
    task = wait("run2", deferrable=deferrable, failed_states=["failed", "killed"])
    assert task.state == "success"


@BOTH
def test_a_run_that_does_not_end_times_out(wait: Callable[..., Any], deferrable: bool) -> None:
    """The sensor's own timeout holds in the triggerer too; Airflow does not retry it."""
    task = wait("run2", deferrable=deferrable, timeout=0.3)
    assert (task.state, task.try_number) == ("failed", 1)


@BOTH
@pytest.mark.parametrize("run_id", ["run2", "nowhere"])
def test_a_sensor_that_never_fails_is_skipped(
    wait: Callable[..., Any], server: Any, deferrable: bool, run_id: str
) -> None:
    """For a bad end as for an error, at the first look in both modes."""
    server.set_state("ann", "demo", "run2", "crashed")
    assert wait(run_id, deferrable=deferrable, never_fail=True).state == "skipped"


def test_an_error_in_the_triggerer_skips_a_sensor_that_never_fails(
    wait: Callable[..., Any], server: Any
) -> None:
    """As it would in a worker."""
    third = Matcher(operation="Run", nth=3)
    gone = Fault(third, Responder(), action=lambda: server.delete_run("ann", "demo", "run2"))
    server.faults.add(gone)
    assert wait("run2", deferrable=True, never_fail=True).state == "skipped"


def test_a_silent_sensor_asks_on_after_a_failed_first_look(
    wait: Callable[..., Any], server: Any
) -> None:
    """silent_fail, in the triggerer as in a worker."""
    server.faults.add(Fault(RUN, Responder.error(502), times=3))
    assert wait("run0", deferrable=True, silent_fail=True).try_number == 1


def test_an_ended_run_is_not_deferred(wait: Callable[..., Any], server: Any) -> None:
    """One look comes first."""
    assert wait("run0", deferrable=True).state == "success"
    assert server.requests.operations() == ["Run"]


@BOTH
def test_a_missing_run_fails_at_once(
    wait: Callable[..., Any], server: Any, deferrable: bool
) -> None:
    """NotFound is NEVER."""
    task = wait("nowhere", deferrable=deferrable)
    assert (task.state, task.try_number) == ("failed", 1)
    assert len(server.requests) == 1


def test_a_limit_burns_no_retry_where_it_can_defer(wait: Callable[..., Any], server: Any) -> None:
    """Neither at the first look nor in the triggerer."""
    server.faults.add(Fault(RUN, Responder.rate_limited(0.3), times=2))
    task = wait("run0", deferrable=True)
    assert (task.state, task.try_number) == ("success", 1)


def test_an_error_in_the_triggerer_is_retried_by_its_advice(
    wait: Callable[..., Any], server: Any, set_connection: Callable[..., None]
) -> None:
    """The run is deleted while the trigger waits: NotFound arrives as itself."""
    third = Matcher(operation="Run", nth=3)
    gone = Fault(third, Responder(), action=lambda: server.delete_run("ann", "demo", "run2"))
    server.faults.add(gone)
    task = wait("run2", deferrable=True)
    assert (task.state, task.try_number, task.max_tries) == ("failed", 1, 4)


def test_the_run_may_be_a_template_or_a_url(wait: Callable[..., Any], server: Any) -> None:
    """What a training task returned."""
    task = wait("run0", run="{{ '" + server.url + "/ann/demo/runs/run0' }}")
    assert task.state == "success"


@pytest.mark.parametrize("name", ["allowed_states", "failed_states"])
def test_a_single_state_is_not_taken_for_its_letters(name: str) -> None:
    """The sensor would wait for a run in state f, i, n ... until its timeout."""
    from wb_ops.airflow import WandbRunSensor

    with pytest.raises(InvalidRequest, match=f"{name}='finished': give a list"):
        WandbRunSensor(task_id="task", run="ann/demo/run0", **{name: "finished"})
