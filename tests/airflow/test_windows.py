"""Which runs an export looks at."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from wb_ops.errors import InvalidRequest

pytestmark = pytest.mark.usefixtures("airflow_home")
DAY = (datetime(2026, 1, 31, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC))
HOUR = (datetime(2026, 1, 31, 5, tzinfo=UTC), datetime(2026, 1, 31, 6, tzinfo=UTC))
NOTHING = (None, None)


def context(key: str | None = None, interval: Any = NOTHING) -> Any:
    """What a task knows of its Dag run."""
    start, end = interval
    dag_run = SimpleNamespace(partition_key=key, data_interval_start=start, data_interval_end=end)
    return {"dag_run": dag_run}


@pytest.mark.parametrize(
    ("window", "explicit", "key", "interval", "expected"),
    [
        ("auto", NOTHING, None, HOUR, NOTHING),
        ("auto", NOTHING, "2026-01-31", HOUR, DAY),
        ("auto", NOTHING, "2026-01-31T00:00:00", HOUR, DAY),
        ("auto", NOTHING, "2026-01-31T00:00:00+00:00", HOUR, DAY),
        ("auto", NOTHING, "2026-01-31T01:00:00+01:00", HOUR, DAY),
        ("auto", NOTHING, "acme/proj", HOUR, NOTHING),
        ("auto", HOUR, "2026-01-31T05:00:00", HOUR, HOUR),
        ("watermark", NOTHING, "2026-01-31T05:00:00", HOUR, NOTHING),
        ("auto", (HOUR[0], None), "2026-01-31", HOUR, (HOUR[0], None)),
        ("watermark", NOTHING, "2026-01-31", HOUR, NOTHING),
        ("data_interval", NOTHING, "2026-01-31", HOUR, HOUR),
        ("data_interval", DAY, None, HOUR, DAY),
    ],
)
def test_explicit_then_partition_then_watermark(
    window: str, explicit: Any, key: str | None, interval: Any, expected: Any
) -> None:
    """The data interval only where it is asked for."""
    from wb_ops.airflow.operators.windows import resolve_window

    assert resolve_window(window, *explicit, context(key, interval)) == expected


@pytest.mark.parametrize(
    "key", ["2026-01-31T05:00:00", "2026-01-31T00:00:00+01:00", "2026-02-31", "2026-01-31|acme"]
)
def test_a_key_that_is_no_day_is_an_error(key: str) -> None:
    """An hour's Dag run would export everything since the watermark, and nobody would notice."""
    from wb_ops.airflow.operators.windows import resolve_window

    with pytest.raises(InvalidRequest, match=r"partition_key='2026.*window=\"watermark\""):
        resolve_window("auto", None, None, context(key, HOUR))


@pytest.mark.parametrize("interval", [NOTHING, (HOUR[0], HOUR[0])])
def test_an_interval_without_time_is_an_error(interval: Any) -> None:
    """It would export nothing, and nobody would notice."""
    from wb_ops.airflow.operators.windows import resolve_window

    with pytest.raises(InvalidRequest, match="CronDataIntervalTimetable"):
        resolve_window("data_interval", None, None, context(interval=interval))


def test_another_word_is_an_error() -> None:
    """Also after rendering."""
    from wb_ops.airflow.operators.windows import resolve_window

    with pytest.raises(InvalidRequest, match="give one of auto, watermark, data_interval"):
        resolve_window("interval", None, None, context())


def test_an_interval_means_the_runs_created_in_it(
    run_dag: Callable[..., Any], connection: None, server: Any, warehouse: str
) -> None:
    """In a Dag whose timetable has intervals."""
    from airflow.sdk import DAG, CronDataIntervalTimetable

    from wb_ops.airflow import WandbExportOperator

    server.seed_run("ann", "demo", "old", created_at="2020-01-01T05:30:00", history=[{"a": 1}])
    timetable = CronDataIntervalTimetable("0 * * * *", timezone="UTC")
    with DAG("interval", schedule=timetable, start_date=datetime(2020, 1, 1, tzinfo=UTC)) as dag:
        WandbExportOperator(
            task_id="task", project="demo", warehouse=warehouse, window="data_interval"
        )
    task = run_dag(dag, logical_date=datetime(2020, 1, 1, 6, tzinfo=UTC)).get_task_instance("task")
    assert task.xcom_pull(task_ids="task")["runs"] == 1
