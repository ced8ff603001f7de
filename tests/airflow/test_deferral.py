"""A deferrable task waits for W&B and the warehouse in the triggerer."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

import wb_ops
from wb_ops.devserver import Fault, Matcher, Responder

pytestmark = pytest.mark.usefixtures("connection")
LISTING = Matcher(operation="Runs")


@pytest.fixture
def export(run_task: Callable[..., Any], warehouse: str) -> Callable[..., Any]:
    """Run one deferrable export task; its task instance when it has ended."""
    from wb_ops.airflow import WandbExportOperator

    def run(**arguments: Any) -> Any:
        given = {"project": "demo", "warehouse": warehouse, "deferrable": True, **arguments}
        return run_task(WandbExportOperator, **given)

    return run


@pytest.fixture
def deferrals(caplog: pytest.LogCaptureFixture) -> Callable[[], int]:
    """How often dag.test() ran a trigger."""
    caplog.set_level("INFO")
    return lambda: caplog.text.count("running trigger in line")


def test_a_limit_burns_no_retry(
    export: Callable[..., Any], server: Any, deferrals: Callable[[], int]
) -> None:
    """Three limits, three waits in the triggerer, one try; even without any retries."""
    server.faults.add(Fault(LISTING, Responder.rate_limited(0.2), times=3))
    task = export(retries=0)
    assert (task.state, task.try_number) == ("success", 1)
    assert deferrals() == 3


def test_the_wait_goes_on_with_the_rest(
    export: Callable[..., Any], server: Any, warehouse: str
) -> None:
    """A limit in the middle of an export loses and doubles nothing."""
    server.faults.add(
        Fault(Matcher(operation="RunParquetHistory", nth=2), Responder.rate_limited(0.2))
    )
    assert export().state == "success"
    steps = wb_ops.connect(warehouse).query("select run_id, _step from history", "ann__demo")
    rows = list(zip(*steps.to_pydict().values(), strict=True))
    assert len(rows) == len(set(rows)) == 12


@pytest.mark.usefixtures("airflow_home")
def test_a_limit_that_names_no_time_is_deferred_too() -> None:
    """Fifteen seconds first, then longer; only where the task may defer."""
    from airflow.sdk.exceptions import TaskDeferred

    from wb_ops.airflow import WandbExportOperator
    from wb_ops.airflow.operators.deferral import defer_throttled

    def limited() -> None:
        raise wb_ops.RateLimited("slow down", http_status=429)

    task = WandbExportOperator(task_id="task", warehouse="duckdb:///x")
    waits = []
    for throttles in range(3):
        began = time.time()
        with pytest.raises(TaskDeferred) as raised:
            defer_throttled(task, limited, throttles, 3)
        assert raised.value.trigger.throttles == throttles + 1
        waits.append(round((raised.value.trigger.until_epoch_s - began) / 15))
    assert waits == [1, 2, 4]
    with pytest.raises(wb_ops.RateLimited):
        defer_throttled(task, limited, 3, 3)


@pytest.mark.usefixtures("airflow_home")
@pytest.mark.parametrize("decided", ["AirflowSkipException", "AirflowFailException"])
@pytest.mark.parametrize("cause", [wb_ops.RateLimited, wb_ops.NotFound])
def test_who_has_decided_already_is_obeyed(decided: str, cause: type[wb_ops.CommError]) -> None:
    """A task that skips or fails because of an error of ours neither waits nor does the other."""
    from airflow.sdk import exceptions

    from wb_ops.airflow import WandbExportOperator
    from wb_ops.airflow.operators.deferral import defer_throttled

    def decide() -> None:
        raise getattr(exceptions, decided)("enough") from cause("no")

    task = WandbExportOperator(task_id="task", warehouse="duckdb:///x")
    with pytest.raises(getattr(exceptions, decided), match="enough"):
        defer_throttled(task, decide, 0, 3)


def test_the_waits_are_bounded(
    export: Callable[..., Any], server: Any, deferrals: Callable[[], int]
) -> None:
    """After max_throttles waits the error reaches the retry policy."""
    server.faults.add(Fault(LISTING, Responder.rate_limited(0.1), times=None))
    task = export(max_throttles=2, retries=1)
    assert (task.state, task.try_number) == ("failed", 2)
    assert deferrals() == 4
    assert len(server.requests) == 6


def test_other_errors_are_not_waited_for(
    export: Callable[..., Any], server: Any, deferrals: Callable[[], int]
) -> None:
    """Only AFTER names a moment."""
    task = export(project="missing")
    assert (task.state, task.try_number) == ("failed", 1)
    assert deferrals() == 0


def test_a_function_of_the_run_may_be_limited_too(
    run_task: Callable[..., Any], server: Any, warehouse: str, deferrals: Callable[[], int]
) -> None:
    """What a user's callable raises from ours carries the advice."""
    from wb_ops.airflow import WandbBackfillSummaryOperator

    def steps(run: Any) -> dict[str, Any]:
        try:
            return {"steps": run.history_table().num_rows}
        except wb_ops.CommError as error:
            raise ValueError("no history") from error

    server.faults.add(Fault(Matcher(operation="RunParquetHistory"), Responder.rate_limited(0.2)))
    task = run_task(
        WandbBackfillSummaryOperator,
        project="demo",
        warehouse=warehouse,
        python_callable=steps,
        deferrable=True,
    )
    assert (task.state, task.try_number) == ("success", 1)
    assert deferrals() == 1


def test_airflows_default_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """[operators] default_deferrable and [wandb] max_throttles, where the task says nothing."""
    from wb_ops.airflow import WandbExportOperator

    plain = WandbExportOperator(task_id="task", warehouse="duckdb:///x")
    assert (plain.deferrable, plain.max_throttles) == (False, 10)
    monkeypatch.setenv("AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE", "True")
    monkeypatch.setenv("AIRFLOW__WANDB__MAX_THROTTLES", "3")
    default = WandbExportOperator(task_id="task", warehouse="duckdb:///x")
    assert (default.deferrable, default.max_throttles) == (True, 3)


@pytest.mark.parametrize("event", [None, {"status": "done"}])
def test_a_strange_event_does_not_resume(event: Any) -> None:
    """The task fails its try instead of starting over for ever."""
    from wb_ops.airflow import WandbExportOperator

    task = WandbExportOperator(task_id="task", warehouse="duckdb:///x")
    with pytest.raises(RuntimeError, match="trigger sent"):
        task.execute_complete({}, event)
