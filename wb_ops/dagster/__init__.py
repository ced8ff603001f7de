"""W&B projects as Dagster assets.

In:  a W&B project and a warehouse, as resources. Out: assets, resources, error translation.
May import: dagster, errors, settings, tables, client, warehouse, export, backfill. Loads without
a request to anybody.
"""

from wb_ops.dagster.assets import WandbExportConfig, build_wandb_assets
from wb_ops.dagster.backfill import WandbBackfillConfig, build_wandb_backfill_asset
from wb_ops.dagster.resource import WandbResource, WarehouseResource
from wb_ops.dagster.retries import DEFAULT_RETRY_POLICY, wandb_retries
from wb_ops.dagster.translator import WandbTableProps, WandbTranslator

__all__ = [
    "DEFAULT_RETRY_POLICY",
    "WandbBackfillConfig",
    "WandbExportConfig",
    "WandbResource",
    "WandbTableProps",
    "WandbTranslator",
    "WarehouseResource",
    "build_wandb_assets",
    "build_wandb_backfill_asset",
    "wandb_retries",
]
