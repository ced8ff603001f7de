"""The code location of test_daemon.py; Dagster loads it by its path."""

import os
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg

from wb_ops.dagster import (
    WandbResource,
    WarehouseResource,
    build_finished_runs_sensor,
    build_wandb_assets,
    build_wandb_changes,
    late_data_condition,
    run_partitions,
)

RUNS = run_partitions("ann", "demo")
TODAY = datetime.fromisoformat(os.environ["TEST_TODAY"])
# The 30 days before today, and none that begins while the test runs.
DAYS = dg.DailyPartitionsDefinition(
    start_date=TODAY - timedelta(days=30), end_date=TODAY, timezone="UTC"
)
LOOKBACK = timedelta(days=14)


def place(name: str, **access: Any) -> dict[str, Any]:
    """A project with a server and a warehouse of its own."""
    return {
        "entity": "ann",
        "project": name,
        "wandb": WandbResource(base_url=os.environ[f"TEST_{name.upper()}"], **access),
        "warehouse": WarehouseResource(url=f"duckdb:///{os.environ['TEST_FOLDER']}/{name}.duckdb"),
    }


demo, daily_place = place("demo"), place("daily")
export = build_wandb_assets(**demo, partitions_def=RUNS)
changes = build_wandb_changes(
    entity="ann",
    project="daily",
    partitions_def=DAYS,
    lookback=LOOKBACK,
    wandb=daily_place["wandb"],
)
daily = build_wandb_assets(
    **daily_place,
    partitions_def=DAYS,
    deps=[changes],
    automation_condition=late_data_condition(LOOKBACK),
    pool="wandb_daily",
)
refused = build_wandb_assets(**place("refused", api_key="wrong" * 10), pool="wandb_refused")
# The first to take the slot that `meanwhile` wants too.
limited = build_wandb_assets(
    **place("limited"), pool="wandb_limited", op_tags={"dagster/priority": "1"}
)
# The next: its first request is limited too.
limited_changes = build_wandb_changes(
    entity="ann",
    project="limited",
    partitions_def=DAYS,
    lookback=LOOKBACK,
    pool="wandb_limited",
    wandb=place("limited")["wandb"],
)
# Its worker is killed while it waits for the second of three histories.
killed = build_wandb_assets(**place("killed", timeout_s=1000.0), pool=None, max_workers=1)


class Careless(dg.ConfigurableResource):
    """A resource that Dagster keeps as it is."""

    api_key: str


@dg.asset(pool="wandb_limited", op_tags={"dagster/priority": "-1"})
def meanwhile(literal: WandbResource, careless: Careless) -> None:
    """The last to take the slot, and only while the other two do not hold it."""


def job(name: str, *assets: Any, executor: dg.ExecutorDefinition = dg.in_process_executor) -> Any:
    return dg.define_asset_job(name, dg.AssetSelection.assets(*assets), executor_def=executor)


defs = dg.Definitions(
    assets=[export, changes, daily, refused, limited, limited_changes, meanwhile, killed],
    jobs=[
        job("observe", changes.key),
        job("killed", killed),
        job("refused", refused),
        job("limited", limited, limited_changes.key, meanwhile, executor=dg.multiprocess_executor),
    ],
    sensors=[
        build_finished_runs_sensor(
            entity="ann",
            project="demo",
            target=export,
            partitions_def=RUNS,
            start_at=datetime(2026, 1, 1, tzinfo=UTC),
            minimum_interval_seconds=5,
            wandb=demo["wandb"],
            default_status=dg.DefaultSensorStatus.RUNNING,
        ),
        dg.AutomationConditionSensorDefinition(
            "late_data", target=dg.AssetSelection.assets(daily), minimum_interval_seconds=5
        ),
    ],
    resources={
        "literal": WandbResource(api_key=os.environ["TEST_LITERAL"]),
        "careless": Careless(api_key=os.environ["TEST_CARELESS"]),
    },
    # A process less for each run; `limited` has the usual executor.
    executor=dg.in_process_executor,
)
