"""W&B projects as Dagster assets.

In:  a W&B project and a warehouse, as resources. Out: assets, resources, error translation.
May import: dagster, errors, settings, tables, client, warehouse, export, backfill. Loads without
a request to anybody.
"""

from wb_ops.dagster.assets import WandbExportConfig, build_wandb_assets, wandb_assets
from wb_ops.dagster.backfill import WandbBackfillConfig, build_wandb_backfill_asset
from wb_ops.dagster.checks import WandbChecks
from wb_ops.dagster.component import WandbProjectComponent
from wb_ops.dagster.component_backfill import WandbBackfill
from wb_ops.dagster.late_data import (
    build_changes_schedule,
    build_wandb_changes,
    late_data_condition,
)
from wb_ops.dagster.options import WandbAssetOptions, WandbBackfillOptions
from wb_ops.dagster.partitions import created_days, run_partitions
from wb_ops.dagster.resource import WandbResource, WarehouseResource
from wb_ops.dagster.retries import DEFAULT_RETRY_POLICY, wandb_retries
from wb_ops.dagster.sensors import build_finished_runs_sensor
from wb_ops.dagster.translator import WandbTableProps, WandbTranslator

__all__ = [
    "DEFAULT_RETRY_POLICY",
    "WandbAssetOptions",
    "WandbBackfill",
    "WandbBackfillConfig",
    "WandbBackfillOptions",
    "WandbChecks",
    "WandbExportConfig",
    "WandbProjectComponent",
    "WandbResource",
    "WandbTableProps",
    "WandbTranslator",
    "WarehouseResource",
    "build_changes_schedule",
    "build_finished_runs_sensor",
    "build_wandb_assets",
    "build_wandb_backfill_asset",
    "build_wandb_changes",
    "created_days",
    "late_data_condition",
    "run_partitions",
    "wandb_assets",
    "wandb_retries",
]
