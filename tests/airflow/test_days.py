"""A project's days: what an export wrote, as partitions that other Dags run on."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from wb_ops.airflow.assets import HAS_RUNTIME_PARTITIONS
from wb_ops.devserver import Fault, Matcher, Responder
from wb_ops.errors import WarehouseBusy

pytestmark = pytest.mark.usefixtures("connection")


@pytest.fixture
def export(run_task: Callable[..., Any], warehouse: str) -> Callable[..., Any]:
    """Run one export task with these outlets; its task instance when it has ended."""
    from wb_ops.airflow import WandbExportOperator

    def run(*outlets: Any, **arguments: Any) -> Any:
        given = {"project": "demo", "warehouse": warehouse, "outlets": outlets, **arguments}
        return run_task(WandbExportOperator, **given)

    return run


@pytest.fixture
def export_ending_after_commit(run_task: Callable[..., Any], warehouse: str) -> Callable[..., Any]:
    """As `export`; the first try commits, and ends before it has told of anything."""
    from wb_ops.airflow import WandbExportOperator

    class EndsAfterCommit(WandbExportOperator):
        def _announce(self, context: Any, *arguments: Any) -> Any:
            if context["ti"].try_number == 1:
                raise WarehouseBusy("held by another", retry_after_s=0.1)
            return super()._announce(context, *arguments)

    def run(*outlets: Any, **arguments: Any) -> Any:
        given = {"project": "demo", "warehouse": warehouse, "outlets": outlets, **arguments}
        return run_task(EndsAfterCommit, **given)

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


@pytest.mark.airflow_3_3
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


@pytest.mark.airflow_3_3
def test_nothing_written_is_no_event(export: Callable[..., Any]) -> None:
    """One without a day would tell a Dag that runs on days nothing."""
    from airflow.sdk import Asset

    from wb_ops.airflow import wandb_days_asset

    outlets = Asset("still", uri="x://still"), wandb_days_asset("ann/demo")
    assert len(days_of(export(*outlets))) == 1
    for _ in range(2):
        again = export(*outlets)
        assert days_of(again) == []
        (event,) = events_of(again, "x://still/")
        assert (event.extra["row_count"], len(event.extra["loads"])) == (0, 1)


@pytest.mark.airflow_3_3
def test_what_an_incomplete_try_committed_is_told_by_the_next(
    export: Callable[..., Any], server: Any
) -> None:
    """The first commits what is sound and fails; the second writes the rest, and tells of both."""
    from airflow.sdk import Asset

    from wb_ops.airflow import wandb_days_asset

    # It still runs, so it is read in pages, which are sound; files are not.
    server.seed_run(
        "ann", "demo", "old", created_at="2026-01-31T12:00:00", state="running", history=[{"x": 1}]
    )
    broken = Matcher(path="*/exports/*", origin="storage")
    server.faults.add(Fault(broken, Responder.truncated(10), times=None))
    task = export(
        Asset("both", uri="x://both"),
        wandb_days_asset("ann/demo"),
        on_incomplete="fail",
        on_retry_callback=lambda context: server.faults.clear(),
    )
    assert (task.state, task.try_number) == ("success", 2)
    assert days_of(task) == ["2026-01-31", f"{datetime.now(UTC):%Y-%m-%d}"]
    (event,) = events_of(task, "x://both/")
    assert event.extra["row_count"] == 13
    assert len(event.extra["loads"]) == 2


@pytest.mark.airflow_3_3
@pytest.mark.parametrize("staging", [None, "staging"])
def test_what_a_try_committed_that_ended_then_is_told_by_the_next(
    export_ending_after_commit: Callable[..., Any], tmp_path: Path, staging: str | None
) -> None:
    """The warehouse was held, or the worker was gone, before anything was told."""
    from wb_ops.airflow import wandb_days_asset

    folder = staging and str(tmp_path / staging)
    task = export_ending_after_commit(wandb_days_asset("ann/demo"), staging=folder)
    assert (task.state, task.try_number) == ("success", 2)
    (event,) = events_of(task, "wandb://ann/demo/days")
    assert event.partition_key == f"{datetime.now(UTC):%Y-%m-%d}"
    assert (event.extra["row_count"], event.extra["runs"]) == (12, 3)
    assert task.xcom_pull(task_ids="task")["history_rows"] == 12


@pytest.mark.airflow_3_3
def test_what_a_dag_run_committed_that_failed_is_told_by_the_next(
    run_task: Callable[..., Any], server: Any, warehouse: str
) -> None:
    """Once: the Dag run after that tells of its own load alone."""
    from wb_ops.airflow import WandbExportOperator, wandb_days_asset

    class MayFail(WandbExportOperator):
        def _announce(self, context: Any, *arguments: Any) -> Any:
            if context["params"]["fails"]:
                raise RuntimeError("the worker is gone")
            return super()._announce(context, *arguments)

    def export(fails: bool) -> Any:
        return run_task(
            MayFail,
            project="demo",
            warehouse=warehouse,
            outlets=[wandb_days_asset("ann/demo")],
            params={"fails": fails},
            retries=0,
        )

    assert export(fails=True).state == "failed"
    now = datetime.now(UTC)
    old = {"created_at": "2026-01-31T12:00:00", "heartbeat_at": now}
    server.seed_run("ann", "demo", "old", history=[{"x": 1}], **old)
    second = export(fails=False)
    assert days_of(second) == ["2026-01-31", f"{now:%Y-%m-%d}"]
    assert {one.extra["row_count"] for one in events_of(second, "wandb://ann/demo/days")} == {13}
    new = {"created_at": "2026-02-01T12:00:00", "heartbeat_at": now}
    server.seed_run("ann", "demo", "new", history=[{"x": 1}], **new)
    third = export(fails=False)
    assert days_of(third) == ["2026-02-01"]
    assert third.xcom_pull(task_ids="task")["history_rows"] == 1


@pytest.mark.airflow_3_3
def test_what_a_partition_committed_is_told_by_that_partition_alone(
    run_task: Callable[..., Any], server: Any, warehouse: str
) -> None:
    """The event has the partition of its Dag run, which no other one's runs belong to."""
    from airflow.sdk import Asset

    from wb_ops.airflow import WandbExportOperator, wandb_days_asset

    class OfDay(WandbExportOperator):
        def _work(self, context: Any) -> Any:
            # dag.test() takes no partition; test_scheduler.py has real ones.
            context["dag_run"].partition_key = context["params"]["day"]
            return super()._work(context)

        def _announce(self, context: Any, *arguments: Any) -> Any:
            if context["params"]["fails"]:
                raise RuntimeError("the worker is gone")
            return super()._announce(context, *arguments)

    def export(day: str, *, fails: bool = False) -> tuple[int, int, list[str | None]]:
        task = run_task(
            OfDay,
            project="demo",
            warehouse=warehouse,
            outlets=[Asset("parts", uri="x://parts"), wandb_days_asset("ann/demo")],
            params={"day": day, "fails": fails},
            retries=0,
        )
        assert task.state == ("failed" if fails else "success")
        told = [(len(e.extra["loads"]), e.extra["runs"]) for e in events_of(task, "x://parts/")]
        return (*(told[0] if told else (0, 0)), days_of(task))

    for day in ("2026-01-30", "2026-01-31"):
        server.seed_run("ann", "demo", day, created_at=f"{day}T12:00:00", history=[{"x": 1}])
    assert export("2026-01-30", fails=True) == (0, 0, [])
    assert export("2026-01-31") == (1, 1, ["2026-01-31"])
    assert export("2026-01-30") == (2, 1, ["2026-01-30"])
    assert export("2026-01-30") == (1, 0, [])


@pytest.mark.airflow_3_3
def test_other_outlets_have_one_event_without_a_day(export: Callable[..., Any]) -> None:
    """A Dag with a plain schedule on it would not run on a partition."""
    from airflow.sdk import Asset

    from wb_ops.airflow import wandb_days_asset

    task = export(Asset("plain", uri="x://plain"), wandb_days_asset("ann/demo"))
    assert [event.partition_key for event in events_of(task, "x://plain/")] == [None]
    assert len(days_of(task)) == 1


@pytest.mark.airflow_3_3
def test_the_days_of_another_project_are_refused(export: Callable[..., Any], server: Any) -> None:
    """Before anything is read."""
    from wb_ops.airflow import wandb_days_asset

    task = export(wandb_days_asset("ann/other"))
    assert (task.state, task.try_number) == ("failed", 1)
    assert server.requests.operations() == []


def test_before_airflow_3_3_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """While the Dag file is parsed; what helps there is named."""
    from wb_ops.airflow import assets

    monkeypatch.setattr(assets, "HAS_RUNTIME_PARTITIONS", False)
    with pytest.raises(RuntimeError, match=r"needs Airflow 3.3 or newer; .* plain outlet"):
        assets.wandb_days_asset("ann/demo")


def test_a_plain_outlet_is_told_of_what_another_try_committed(
    export_ending_after_commit: Callable[..., Any],
) -> None:
    """By Airflow's state stores; before 3.3, without them, an event tells of its own load."""
    from airflow.sdk import Asset

    plain = Asset("told", uri="x://told")
    task = export_ending_after_commit(plain)
    assert (task.state, task.try_number) == ("success", 2)
    (event,) = events_of(task, plain.uri)
    told = (len(event.extra["loads"]), event.extra["row_count"])
    assert told == ((2, 12) if HAS_RUNTIME_PARTITIONS else (1, 0))


@pytest.mark.parametrize("path", ["demo", "ann/", "ann/demo/run0"])
def test_a_path_that_is_no_project_is_refused(path: str) -> None:
    """While the Dag file is parsed."""
    from wb_ops.airflow import wandb_days_asset

    with pytest.raises(ValueError, match="give entity/project"):
        wandb_days_asset(path)
