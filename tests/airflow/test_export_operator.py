"""What an export task writes, returns and announces."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

import wb_ops
from wb_ops.devserver import Fault, Matcher, Responder

pytestmark = pytest.mark.usefixtures("connection")


@pytest.fixture
def export(run_task: Callable[..., Any], warehouse: str) -> Callable[..., Any]:
    """Run one export task; its task instance when it has ended."""
    from wb_ops.airflow import WandbExportOperator

    def run(**arguments: Any) -> Any:
        given = {"project": "demo", "warehouse": warehouse, **arguments}
        return run_task(WandbExportOperator, **given)

    return run


def result_of(task: Any) -> dict[str, Any]:
    result: dict[str, Any] = task.xcom_pull(task_ids="task")
    return result


def test_the_result_agrees_with_the_tables(export: Callable[..., Any], warehouse: str) -> None:
    """The XCom counts what the warehouse holds."""
    task = export()
    assert task.state == "success"
    result = result_of(task)
    rows = wb_ops.connect(warehouse).query("select * from history", result["dataset"])
    assert (result["dataset"], result["warehouse"]) == ("ann__demo", warehouse)
    assert rows.num_rows == result["history_rows"] == 12
    assert result["runs"] == 3
    assert result["receipts"] == {"complete": 2, "growing": 1}
    assert result["load_id"].startswith("load-")
    assert result["watermark"]


def test_a_second_export_writes_nothing_again(export: Callable[..., Any]) -> None:
    """The watermark in the warehouse says where to go on."""
    export()
    assert result_of(export())["history_rows"] == 0


def test_a_window_takes_the_runs_created_in_it(export: Callable[..., Any], server: Any) -> None:
    """since and until are ISO text with a time zone, rendered or given."""
    server.seed_run("ann", "demo", "old", created_at="2020-01-01T00:00:00", history=[{"a": 1}])
    window = {"since": "2019-12-31T00:00:00+00:00", "until": "{{ '2020-01-02T00:00:00Z' }}"}
    assert result_of(export(**window))["runs"] == 1


def test_filters_and_keys_may_be_json_text(export: Callable[..., Any], warehouse: str) -> None:
    """A template makes text of a dict and of a list."""
    task = export(filters="{{ {'state': 'finished'} | tojson }}", keys='["val_acc"]')
    assert result_of(task)["runs"] == 2
    columns = wb_ops.connect(warehouse).query("select * from history", "ann__demo").column_names
    assert "val_acc" in columns
    assert "loss" not in columns


def test_tables_states_and_runs_are_chosen(export: Callable[..., Any], warehouse: str) -> None:
    """Of run0 (finished) and run2 (still running) the first, with no history."""
    task = export(
        tables='["runs", "system_metrics"]',
        states="{{ ['finished'] | tojson }}",
        run_ids="{{ ['run0', 'run2'] | tojson }}",
    )
    assert task.state == "success"
    assert result_of(task)["history_rows"] == 0
    runs = wb_ops.connect(warehouse).query("select run_id from runs", "ann__demo")
    assert runs["run_id"].to_pylist() == ["run0"]


def test_secrets_are_redacted_where_asked_to(
    export: Callable[..., Any], warehouse: str, server: Any
) -> None:
    """A rendered flag is text; the value does not reach the warehouse."""
    token = "ghp_" + "a1B2" * 9
    server.seed_run("ann", "demo", "leaky", config={"token": token})
    assert export(redact_secrets="{{ true }}", run_ids=["leaky"]).state == "success"
    (config,) = wb_ops.connect(warehouse).query("select config from runs", "ann__demo")["config"]
    assert json.loads(config.as_py()) == {"token": "[redacted]"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"since": "yesterday"},
        {"since": "2020-01-01T00:00:00"},
        {"filters": "{'state': 'finished'}"},
        {"filters": ["finished"]},
        {"keys": '"val_acc"'},
        {"mode": "all"},
        {"tables": "runs"},
        {"tables": ["metrics"]},
        {"states": "finished"},
        {"run_ids": []},
        {"redact_secrets": "yes"},
        {"project": ""},
        {"warehouse": "oracle://x"},
    ],
    ids=str,
)
def test_a_wrong_argument_fails_at_the_first_try(
    export: Callable[..., Any], server: Any, wrong: dict[str, Any]
) -> None:
    """Arguments are checked after rendering and before the first request."""
    task = export(**wrong)
    assert (task.state, task.try_number) == ("failed", 1)
    assert len(server.requests) == 0


def test_the_project_defaults_to_the_connections(
    export: Callable[..., Any], set_connection: Callable[..., None]
) -> None:
    """Empty text counts as not given: templates make it of None."""
    set_connection(extra={"project": "demo"})
    assert result_of(export(project="{{ none or '' }}"))["runs"] == 3


def test_the_entity_defaults_to_the_keys_own(
    export: Callable[..., Any], set_connection: Callable[..., None]
) -> None:
    """Without an entity anywhere, the server says whose key it is."""
    set_connection(extra={"entity": None})
    assert result_of(export())["dataset"] == "ann__demo"


def test_the_link_leads_to_the_project(export: Callable[..., Any], server: Any) -> None:
    """A task that failed has the link too: it is pushed before the first request."""
    task = export(project="not here")
    assert task.state == "failed"
    url = task.xcom_pull(task_ids="task", key="wandb_project_url")
    assert url == f"{server.url}/ann/not%20here"


def test_the_report_is_a_click_away(export: Callable[..., Any], server: Any) -> None:
    """A link to the task's XComs, where the report names each run that does not add up."""
    server.faults.add(
        Fault(Matcher(path="*/exports/*", origin="storage"), Responder.truncated(10), times=None)
    )
    task = export()
    url = task.xcom_pull(task_ids="task", key="wandb_load_url")
    assert url.startswith(f"/dags/{task.dag_id}/runs/manual__")
    assert url.endswith("/tasks/task/xcom")
    report = task.xcom_pull(task_ids="task", key="load_report")
    assert report.startswith(f"{result_of(task)['load_id']}: 3 runs and ")
    assert "\nrun run0: failed " in report
    assert "\nrun run1: failed " in report


def test_an_outlets_event_carries_the_counts(export: Callable[..., Any]) -> None:
    """A Dag scheduled on the asset sees how much there is before it starts."""
    from airflow.models.asset import AssetEvent
    from airflow.sdk import Asset
    from airflow.settings import Session

    task = export(outlets=[Asset("exported")])
    (event,) = Session.query(AssetEvent).filter_by(source_run_id=task.run_id).all()
    result = result_of(task)
    assert event.extra["row_count"] == result["history_rows"] == 12
    assert event.extra["load_id"] == result["load_id"]
    assert event.extra["watermark"] == result["watermark"]


def test_an_incomplete_export_fails_where_asked_to(
    export: Callable[..., Any], server: Any, warehouse: str
) -> None:
    """With on_incomplete="fail" the sound runs are committed, then the task retries the rest."""
    broken = Matcher(path="*/exports/*", origin="storage")
    server.faults.add(Fault(broken, Responder.truncated(10), times=None))
    task = export(on_incomplete="fail", retries=0)
    assert task.state == "failed"
    statuses = wb_ops.connect(warehouse).query(
        "select status from _wb_receipts where table_name = 'history'", "ann__demo"
    )
    assert sorted(statuses["status"].to_pylist()) == ["failed", "failed", "growing"]
