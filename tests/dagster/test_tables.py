"""Which tables a project has is chosen once: assets, checks and metadata follow."""

from __future__ import annotations

import dagster as dg
import pytest

from wb_ops.dagster import WandbChecks, build_wandb_assets, created_days

ALL = ("runs", "history", "system_metrics")
EVENTS = [{"_timestamp": 1.7e9 + second, "system.cpu": second} for second in range(6)]


def export(**options) -> dg.AssetsDefinition:
    return build_wandb_assets(entity="ann", project="demo", retry_policy=None, **options)


@pytest.fixture
def busy(bench):
    """A run with a system stream, created on a day of its own."""
    bench.server.seed_run(
        "ann", "demo", "busy", created_at="2026-03-03T12:00:00", history=[{"a": 1}], events=EVENTS
    )
    return bench


def test_system_metrics_are_an_asset_where_they_are_asked_for(busy):
    ran = busy.run(export(tables=ALL))
    assert ran.materialized == set(ALL)
    shown = ran.metadata("system_metrics")
    assert shown["dagster/row_count"] == len(EVENTS)
    assert shown["dagster/table_name"] == "ann__demo.system_metrics"
    assert shown["wandb/system_rows_written"] == len(EVENTS)
    columns = {column.name for column in shown["dagster/column_schema"].columns}
    assert {"run_id", "timestamp", "key", "value", "sampled"} <= columns
    values = busy.rows("select value from system_metrics order by timestamp")
    assert [row["value"] for row in values] == [float(event["system.cpu"]) for event in EVENTS]


def test_a_second_materialization_leaves_them_as_they_are(busy):
    assets = export(tables=ALL)
    busy.run(assets)
    rows = "select * exclude (_load_id) from system_metrics order by all"
    before = busy.rows(rows)
    assert len(before) == len(EVENTS)
    assert busy.run(assets).success
    assert busy.rows(rows) == before


def test_their_rows_are_counted_by_day_and_checked(busy):
    assets = export(
        tables=ALL, partitions_def=created_days("2026-03-01"), checks=WandbChecks(max_rows=5)
    )
    ran = busy.run(assets, partition_key="2026-03-03")
    assert ran.metadata("system_metrics")["dagster/partition_row_count"] == len(EVENTS)
    checks = {
        one.asset_key.path[-1]: one.passed
        for one in ran.result.get_asset_check_evaluations()
        if one.check_name == "row_count"
    }
    assert checks == {"runs": True, "history": True, "system_metrics": False}


def test_runs_can_be_alone(busy):
    ran = busy.run(export(tables=["runs"], partitions_def=created_days("2026-03-01")),
                   partition_key="2026-03-03")  # fmt: skip
    assert ran.success
    assert ran.materialized == {"runs"}
    assert ran.metadata("runs")["dagster/partition_row_count"] == 1


def test_states_choose_runs(busy):
    busy.server.seed_run("ann", "demo", "lost", state="crashed", history=[{"a": 1}])
    assert busy.run(export(states=["crashed"])).success
    assert busy.rows("select run_id from runs") == [{"run_id": "lost"}]


def test_what_looks_like_a_key_can_be_left_out(busy):
    secret = "sk-" + "a1B2" * 12
    busy.server.seed_run("ann", "demo", "leaky", config={"api_key": secret}, history=[{"a": 1}])
    assert busy.run(export(redact_secrets=True)).success
    (row,) = busy.rows("select config from runs where run_id = 'leaky'")
    assert secret not in row["config"]
    assert "[redacted]" in row["config"]
