"""What a deployment's database says of its partitions, asset events and consumers."""

from __future__ import annotations

import json
from typing import Any

from airflow_deployment import Airflow

from wb_ops.airflow.retry_policy import HAS_RETRY_POLICIES


def partitions(airflow: Airflow, dag_id: str) -> dict[str, str]:
    """The states of a Dag's runs, by their partition."""
    sql = "select partition_key, state from dag_run where dag_id = ? order by id"
    return {row["partition_key"]: row["state"] for row in airflow.rows(sql, dag_id)}


def told(airflow: Airflow) -> dict[str, int]:
    """The runs that were written, by the day that an event of the export has as its partition.

    The event of any asset has the partition of its Dag run; that of days has those of its own.
    """
    events = airflow.rows(
        "select a.name, e.partition_key, e.extra from asset_event e "
        "join asset a on a.id = e.asset_id where e.source_dag_id = 'nightly' order by e.id"
    )
    of_table = {e["partition_key"]: e["extra"] for e in events if e["name"] == "exported_night"}
    of_days = {e["partition_key"]: e["extra"] for e in events if e["name"] != "exported_night"}
    assert len(events) == len(of_table) + len(of_days)
    told = {key.removesuffix("T00:00:00"): extra for key, extra in of_table.items()}
    if HAS_RETRY_POLICIES:
        assert of_days == told
    return {day: json.loads(extra)["runs"] for day, extra in told.items()}


def exports(airflow: Airflow) -> list[dict[str, Any]]:
    rows = airflow.rows(
        "select e.extra from asset_event e join asset a on a.id = e.asset_id "
        "where e.source_dag_id = 'live' and a.name = 'exported_table'"
    )
    return [json.loads(row["extra"]) for row in rows]


def consumed(airflow: Airflow, run_id: str) -> list[Any]:
    """Wait until an event named the run and a consumer has run after it."""

    def find() -> list[Any]:
        events = airflow.rows(
            "select timestamp from asset_event where extra like ? and source_dag_id is null",
            f'%"{run_id}"%',
        )
        ended = [task for task in airflow.tasks("consumer") if task["state"] == "success"]
        return [t for t in ended if events and t["start_date"] > events[0]["timestamp"]]

    found: list[Any] = airflow.wait_for(find)
    return found
