"""Every error of the core has an Airflow decision; before 3.3 what the last test shows."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from wb_ops import errors
from wb_ops.errors import (
    Advice,
    AdviceKind,
    ExportIncomplete,
    NotFound,
    RateLimited,
    ServerUnavailable,
    WarehouseBusy,
    WbOpsError,
)

DECISIONS = {
    "RateLimited": "retry",
    "WarehouseBusy": "retry",
    "ServerUnavailable": "retry",
    "ConnectionFailed": "retry",
    "RequestTimeout": "retry",
    "MalformedResponse": "retry",
    "IncompleteHistory": "retry",
    "OutcomeUnknown": "retry",
    "WarehouseUnavailable": "retry",
    "AuthenticationFailed": "fail",
    "PermissionDenied": "fail",
    "NotFound": "fail",
    "InvalidRequest": "fail",
    "WarehouseRefused": "fail",
    "ExportIncomplete": "fail",
}
BASES = {"WbOpsError", "CommError", "WarehouseError"}


def subclasses(cls: type[WbOpsError]) -> Iterator[type[WbOpsError]]:
    for one in cls.__subclasses__():
        yield one
        yield from subclasses(one)


def test_the_table_has_every_error() -> None:
    """A new error class needs a line here, and thereby a decision."""
    public = {cls.__name__ for cls in subclasses(WbOpsError) if not cls.__name__.startswith("_")}
    assert public - BASES == set(DECISIONS)


@pytest.mark.parametrize(("name", "action"), DECISIONS.items())
@pytest.mark.airflow_3_3
def test_each_error_has_its_decision(name: str, action: str) -> None:
    """AFTER is retried when it says, NEVER fails, the rest is backed off from."""
    from wb_ops.airflow import WandbRetryPolicy

    error = getattr(errors, name)("what failed")
    error.retry_after_s = 12.0
    assert WandbRetryPolicy().evaluate(error, 1, 4).action.value == action


@pytest.mark.airflow_3_3
def test_an_incomplete_export_is_decided_by_its_runs() -> None:
    """The mildest advice that helps one of them."""
    from wb_ops.airflow import WandbRetryPolicy

    causes = [Advice(AdviceKind.NEVER), Advice(AdviceKind.AFTER, 3.0)]
    decision = WandbRetryPolicy().evaluate(ExportIncomplete("some", causes), 1, 4)
    assert decision.retry_delay == timedelta(seconds=3)


@pytest.mark.airflow_3_3
def test_a_wrapped_error_is_found() -> None:
    """What users' code and loaders raise from ours carries its advice."""
    from wb_ops.airflow import WandbRetryPolicy

    outer = RuntimeError("the callable failed")
    outer.__cause__ = NotFound("no such project", http_status=404)
    decision = WandbRetryPolicy().evaluate(outer, 1, 4)
    assert decision.action.value == "fail"
    assert decision.reason == "W&B 404 NotFound: a retry cannot help"


@pytest.mark.parametrize("exc", [RuntimeError("a bug"), SystemExit(1)])
@pytest.mark.airflow_3_3
def test_other_errors_are_left_to_the_task(exc: BaseException) -> None:
    """An unknown exception is a bug, and the task's settings decide."""
    from wb_ops.airflow import WandbRetryPolicy

    assert WandbRetryPolicy().evaluate(exc, 1, 4).action.value == "default"


@pytest.mark.airflow_3_3
def test_the_delay_is_capped() -> None:
    """Airflow does not apply max_retry_delay to a policy's delay."""
    from wb_ops.airflow import WandbRetryPolicy

    error = RateLimited("slow down", http_status=429, retry_after_s=7200)
    decision = WandbRetryPolicy(max_delay_s=60).evaluate(error, 1, 4)
    assert decision.retry_delay == timedelta(seconds=60)
    assert decision.reason == "W&B 429 Retry-After=7200s, capped at 60s"
    patient = WandbRetryPolicy(max_delay_s=7200).evaluate(error, 1, 4)
    assert patient.retry_delay == timedelta(hours=2)
    assert patient.reason == "W&B 429 Retry-After=7200s"


@pytest.mark.airflow_3_3
def test_a_busy_warehouse_is_named() -> None:
    """The reason says who asks for the wait."""
    from wb_ops.airflow import WandbRetryPolicy

    decision = WandbRetryPolicy().evaluate(WarehouseBusy("held", retry_after_s=15), 1, 4)
    assert decision.reason == "Warehouse Retry-After=15s"


@pytest.mark.parametrize(
    ("try_number", "minutes"), [(0, 1), (1, 1), (2, 2), (3, 4), (7, 60), (5000, 60)]
)
@pytest.mark.airflow_3_3
def test_a_delay_that_nobody_named_grows(try_number: int, minutes: int) -> None:
    """From the task's own retry_delay on; a 429 without any header is one, too."""
    from airflow.sdk import BaseOperator

    from wb_ops.airflow import WandbRetryPolicy

    task = BaseOperator(task_id="task", retry_delay=timedelta(minutes=1))
    for error in (RateLimited("slow down"), ServerUnavailable("away", http_status=503)):
        decision = WandbRetryPolicy().evaluate(error, try_number, 9, {"task": task})
        assert decision.retry_delay == timedelta(minutes=minutes)
    assert decision.reason == f"W&B 503 ServerUnavailable: backing off {minutes * 60}s"


@pytest.mark.airflow_3_3
def test_a_tasks_own_backoff_is_left_to_it() -> None:
    """With the reason all the same."""
    from airflow.sdk import BaseOperator

    from wb_ops.airflow import WandbRetryPolicy

    task = BaseOperator(task_id="task", retry_exponential_backoff=2.0)
    decision = WandbRetryPolicy().evaluate(ServerUnavailable("away"), 1, 4, {"task": task})
    assert (decision.action.value, decision.retry_delay) == ("retry", None)
    assert decision.reason == "W&B ServerUnavailable: the task's own backoff"


class Instance:
    """A task instance, as far as the policy writes to it."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.failure = failure
        self.shown: list[str] = []

    def xcom_push(self, key: str, value: str) -> None:
        if self.failure is not None:
            raise self.failure
        self.shown.append(value)


@pytest.mark.airflow_3_3
def test_a_reason_that_cannot_be_kept_changes_no_decision() -> None:
    from wb_ops.airflow.retry_policy import WandbRetryPolicy

    context: Any = {"ti": Instance(OSError("the bucket is gone")), "task": None}
    limited, refused = RateLimited("", retry_after_s=12), errors.AuthenticationFailed("")
    assert WandbRetryPolicy().evaluate(limited, 1, 4, context).retry_delay == timedelta(seconds=12)
    assert WandbRetryPolicy().evaluate(refused, 1, 4, context).action.value == "fail"


@pytest.mark.airflow_3_3
def test_the_reason_of_the_last_try_promises_no_retry() -> None:
    from wb_ops.airflow.retry_policy import WandbRetryPolicy

    instance = Instance()
    context: Any = {"ti": instance, "task": None}
    for try_number in (4, 5):
        WandbRetryPolicy().evaluate(RateLimited("", retry_after_s=12), try_number, 4, context)
    assert instance.shown == [
        "W&B Retry-After=12s",
        "W&B Retry-After=12s; no retry is left",
    ]


@pytest.mark.airflow_3_3
def test_it_can_be_chained() -> None:
    """Airflow's ChainRetryPolicy asks the user's policy first and ours where that has no view."""
    from airflow.providers.common.compat.sdk import ChainRetryPolicy
    from airflow.sdk import ExceptionRetryPolicy, RetryAction, RetryRule

    from wb_ops.airflow import WandbRetryPolicy

    theirs = ExceptionRetryPolicy([RetryRule(ServerUnavailable, RetryAction.FAIL)])
    chain = ChainRetryPolicy([theirs, WandbRetryPolicy()])
    assert chain.evaluate(ServerUnavailable("502"), 1, 4).action.value == "fail"
    assert chain.evaluate(RateLimited("429", retry_after_s=1), 1, 4).action.value == "retry"


OLD_AIRFLOW = """
import sys
sys.modules["airflow.sdk.definitions.retry_policy"] = None  # as in Airflow 3.2
from wb_ops.airflow import WandbBackfillSummaryOperator, WandbExportOperator, WandbRetryPolicy
from wb_ops.airflow import WandbFilterRunsOperator, WandbRunSensor, wandb_runs_asset
from wb_ops.airflow.decorators.wandb import wandb_task
from wb_ops.airflow.retry_policy import policy_argument
wandb_runs_asset("ann/demo")
assert WandbRunSensor(task_id="task", run="ann/demo/run0").retries == 4
assert WandbFilterRunsOperator(task_id="task").retries == 4
for operator in (WandbExportOperator, WandbBackfillSummaryOperator):
    assert operator(task_id="task", warehouse="duckdb:///x.duckdb").retries == 4
assert policy_argument(None) == {}, "Airflow 3.2 refuses the argument"
import pytest
from airflow.sdk.exceptions import AirflowFailException
from wb_ops.airflow.operators.deferral import defer_throttled
from wb_ops.airflow.triggers.events import error_event
from wb_ops.errors import NotFound, ServerUnavailable

def fail(error):
    raise error

task = WandbFilterRunsOperator(task_id="task")
for kind, wanted in ((NotFound, AirflowFailException), (ServerUnavailable, ServerUnavailable)):
    with pytest.raises(wanted):
        defer_throttled(task, lambda: fail(kind("x")), 0, 0)

class Lost(WandbRunSensor):
    def poke(self, context):
        raise NotFound("no such run")

sensor = Lost(task_id="sensor", run="ann/demo/lost", deferrable=True)
for wait in (sensor.execute, lambda _: sensor.execute_complete({}, error_event(NotFound("x")))):
    with pytest.raises(AirflowFailException):
        wait({})
try:
    WandbRetryPolicy()
except RuntimeError as error:
    print(error)
heavy = {"pyarrow", "pandas", "duckdb"} & set(sys.modules)
assert not heavy, f"parsing a Dag imports {heavy}"
"""


def test_before_airflow_3_3_the_operators_work_without_it(airflow_home: Path) -> None:
    """The policy says what it needs; importing operators costs no pyarrow and no warehouse."""
    done = subprocess.run(
        [sys.executable, "-c", OLD_AIRFLOW],
        env={**os.environ, "AIRFLOW_HOME": str(airflow_home)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "WandbRetryPolicy needs Airflow 3.3" in done.stdout
