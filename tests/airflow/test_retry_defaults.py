"""`retries=4` and our policy as defaults of the signatures, and what wins over them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from wb_ops.airflow.retry_policy import HAS_RETRY_POLICIES

pytestmark = pytest.mark.usefixtures("airflow_home")

# each task of ours, and an argument that it can be mapped over
ARGUMENTS: dict[str, dict[str, Any]] = {
    "WandbExportOperator": {"warehouse": "duckdb:///x"},
    "WandbPlanExportOperator": {"warehouse": "duckdb:///x", "staging": "/x"},
    "WandbExportShardOperator": {"shard": {}},
    "WandbCommitExportOperator": {"warehouse": "duckdb:///x", "plan_uri": "/x"},
    "WandbFilterRunsOperator": {"project": "demo"},
    "WandbPlanBackfillOperator": {"staging": "/x", "warehouse": "duckdb:///x"},
    "WandbApplyBackfillOperator": {"warehouse": "duckdb:///x", "plan": {}},
    "WandbBackfillSummaryOperator": {"warehouse": "duckdb:///x"},
    "WandbRunSensor": {"run": "ann/demo/run0"},
}
# how the task is given what it has; `theirs` stands for a policy of the user
GIVEN: dict[str, dict[str, Any]] = {
    "nothing": {"retries": 4, "policy": "ours"},
    "default_args": {"retries": 1, "policy": "theirs"},
    "arguments": {"retries": 2, "policy": "theirs"},
    "none": {"retries": 0, "policy": None},
    "none over default_args": {"retries": 0, "policy": None},
}


def build(kind: str, operator: Any, arguments: dict[str, Any], theirs: Any, mapped: bool) -> Any:
    """One task in a Dag, plain or mapped over its last argument."""
    from airflow.sdk import DAG

    policy = {"retry_policy": theirs} if HAS_RETRY_POLICIES else {}
    with_defaults = {"retries": 1, **policy}
    own: dict[str, Any] = {
        "arguments": {"retries": 2, **policy},
        "none": {"retries": 0, "retry_policy": None},
        "none over default_args": {"retries": 0, "retry_policy": None},
    }.get(kind, {})
    with DAG("defaults", schedule=None, default_args=with_defaults if "default" in kind else {}):
        if not mapped:
            return operator(task_id="task", **arguments, **own)
        *rest, (name, value) = arguments.items()
        return operator.partial(task_id="task", **dict(rest), **own).expand(**{name: [value]})


def cases() -> Iterator[Any]:
    for name in ARGUMENTS:
        for kind in GIVEN:
            for mapped in (False, True):
                yield pytest.param(name, kind, mapped, id=f"{name}-{kind}-{mapped and 'mapped'}")


@pytest.mark.parametrize(("name", "kind", "mapped"), list(cases()))
def test_arguments_then_default_args_then_ours(name: str, kind: str, mapped: bool) -> None:
    """Plain and mapped alike; an explicit None takes the policy away.

    Before Airflow 3.3 our defaults are those of plain tasks alone, and there are no policies.
    """
    import wb_ops.airflow

    theirs = policy_of_a_user()
    operator = getattr(wb_ops.airflow, name)
    task = build(kind, operator, ARGUMENTS[name], theirs, mapped)
    # Before Airflow 3.3 mapped tasks have no defaults of a signature.
    none_given = kind == "nothing" and mapped and not HAS_RETRY_POLICIES
    assert task.retries == (0 if none_given else GIVEN[kind]["retries"])
    wanted = GIVEN[kind]["policy"] if HAS_RETRY_POLICIES else None
    if wanted == "ours":
        assert isinstance(task.retry_policy, wb_ops.airflow.WandbRetryPolicy)
    else:
        assert getattr(task, "retry_policy", None) is (theirs if wanted == "theirs" else None)


def policy_of_a_user() -> Any:
    """One that has no view of anything; None before Airflow 3.3."""
    from airflow import sdk

    return sdk.ExceptionRetryPolicy([]) if HAS_RETRY_POLICIES else None


def test_every_task_of_ours_is_asked() -> None:
    """A new operator needs a line above."""
    import wb_ops.airflow

    ours = {one for one in wb_ops.airflow.__all__ if one.endswith(("Operator", "Sensor"))}
    assert ours == set(ARGUMENTS)
