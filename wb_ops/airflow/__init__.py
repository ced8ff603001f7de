"""The Airflow provider: hook, operators, sensor, triggers and a retry policy over the core.

In:  Airflow connections, arguments, contexts. Out: core requests, small results, retry decisions.
May import: airflow and the core, not cli, dagster or dlt. The names below load on first use,
because Airflow reads `provider_info` before its own configuration is ready.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wb_ops.airflow.assets import wandb_days_asset, wandb_runs_asset
    from wb_ops.airflow.hooks.wandb import WandbHook
    from wb_ops.airflow.links import WandbLoadLink, WandbProjectLink, WandbRunLink
    from wb_ops.airflow.operators.backfill import (
        WandbApplyBackfillOperator,
        WandbBackfillSummaryOperator,
        WandbPlanBackfillOperator,
    )
    from wb_ops.airflow.operators.export import WandbExportOperator
    from wb_ops.airflow.operators.export_shards import (
        WandbCommitExportOperator,
        WandbExportShardOperator,
        WandbPlanExportOperator,
    )
    from wb_ops.airflow.operators.filter_runs import WandbFilterRunsOperator
    from wb_ops.airflow.retry_policy import WandbRetryPolicy
    from wb_ops.airflow.sensors.run import WandbRunSensor

__all__ = [
    "WandbApplyBackfillOperator",
    "WandbBackfillSummaryOperator",
    "WandbCommitExportOperator",
    "WandbExportOperator",
    "WandbExportShardOperator",
    "WandbFilterRunsOperator",
    "WandbHook",
    "WandbLoadLink",
    "WandbPlanBackfillOperator",
    "WandbPlanExportOperator",
    "WandbProjectLink",
    "WandbRetryPolicy",
    "WandbRunLink",
    "WandbRunSensor",
    "wandb_days_asset",
    "wandb_runs_asset",
]

_LAZY = {
    "WandbApplyBackfillOperator": "wb_ops.airflow.operators.backfill",
    "WandbBackfillSummaryOperator": "wb_ops.airflow.operators.backfill",
    "WandbCommitExportOperator": "wb_ops.airflow.operators.export_shards",
    "WandbExportOperator": "wb_ops.airflow.operators.export",
    "WandbExportShardOperator": "wb_ops.airflow.operators.export_shards",
    "WandbFilterRunsOperator": "wb_ops.airflow.operators.filter_runs",
    "WandbHook": "wb_ops.airflow.hooks.wandb",
    "WandbLoadLink": "wb_ops.airflow.links",
    "WandbPlanBackfillOperator": "wb_ops.airflow.operators.backfill",
    "WandbPlanExportOperator": "wb_ops.airflow.operators.export_shards",
    "WandbProjectLink": "wb_ops.airflow.links",
    "WandbRetryPolicy": "wb_ops.airflow.retry_policy",
    "WandbRunLink": "wb_ops.airflow.links",
    "WandbRunSensor": "wb_ops.airflow.sensors.run",
    "wandb_days_asset": "wb_ops.airflow.assets",
    "wandb_runs_asset": "wb_ops.airflow.assets",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_LAZY[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
