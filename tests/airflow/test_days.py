"""A project's days: what an export wrote, as partitions that other Dags run on."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

pytestmark = pytest.mark.usefixtures("connection")


@pytest.fixture
def export(run_task: Callable[..., Any], warehouse: str) -> Callable[..., Any]:
    """Run one export task with these outlets; its task instance when it has ended."""
    from wb_ops.airflow import WandbExportOperator

    def run(*outlets: Any, **arguments: Any) -> Any:
        given = {"project": "demo", "warehouse": warehouse, "outlets": outlets, **arguments}
        return run_task(WandbExportOperator, **given)

    return run


def events_of(task: Any, uri: str) -> list[Any]:
    """The asset's events that this task made, by their partition."""
    from airflow.models.asset import AssetEvent
    from airflow.settings import Session

    events = Session.query(AssetEvent).filter_by(source_run_id=task.run_id)
    return sorted(
        (event for event in events if event.asset.uri == uri),
        key=lambda event: event.partition_key or "",
    )


def days_of(task: Any) -> list[str | None]:
    return [event.partition_key for event in events_of(task, "wandb://ann/demo/days")]


def test_an_export_announces_the_days_that_it_wrote(
    export: Callable[..., Any], server: Any
) -> None:
    """Created days, each once, with the counts of the load; a late end changes an old day."""
    from wb_ops.airflow import wandb_days_asset

    today = f"{datetime.now(UTC):%Y-%m-%d}"
    for run_id, moment in {"a": "2026-01-31T23:59:59", "b": "2026-02-01T00:00:00"}.items():
        server.seed_run(
            "ann", "demo", run_id, created_at=moment, state="running", history=[{"x": 1}]
        )
    first = export(wandb_days_asset("ann/demo"))
    assert days_of(first) == ["2026-01-31", "2026-02-01", today]
    server.finish_run("ann", "demo", "a", exit_code=0)
    # run2 is still running as well, but did not change.
    second = export(wandb_days_asset("ann/demo"))
    assert days_of(second) == ["2026-01-31"]
    (event,) = events_of(second, "wandb://ann/demo/days")
    assert event.extra["runs"] == 1
    assert event.extra["load_id"] == second.xcom_pull(task_ids="task")["load_id"]


def test_other_outlets_have_one_event_without_a_day(export: Callable[..., Any]) -> None:
    """A Dag with a plain schedule on it would not run on a partition."""
    from airflow.sdk import Asset

    from wb_ops.airflow import wandb_days_asset

    task = export(Asset("plain", uri="x://plain"), wandb_days_asset("ann/demo"))
    assert [event.partition_key for event in events_of(task, "x://plain/")] == [None]
    assert len(days_of(task)) == 1


def test_the_days_of_another_project_are_refused(export: Callable[..., Any], server: Any) -> None:
    """Before anything is read."""
    from wb_ops.airflow import wandb_days_asset

    task = export(wandb_days_asset("ann/other"))
    assert (task.state, task.try_number) == ("failed", 1)
    assert server.requests.operations() == []


@pytest.mark.parametrize("path", ["demo", "ann/", "ann/demo/run0"])
def test_a_path_that_is_no_project_is_refused(path: str) -> None:
    """While the Dag file is parsed."""
    from wb_ops.airflow import wandb_days_asset

    with pytest.raises(ValueError, match="give entity/project"):
        wandb_days_asset(path)
