"""W&B runs and histories into a warehouse: plan, then execute.

In:  ExportRequest, an Api, a Warehouse. Out: committed tables and an ExportReport.
May import: errors, settings, tables, client, warehouse. Names load on first use: a code location
that only describes an export loads no pyarrow.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wb_ops.export.commit_plan import commit_plan
    from wb_ops.export.decide import PlannedRun
    from wb_ops.export.execute import execute_export
    from wb_ops.export.old_plans import delete_old_plans
    from wb_ops.export.plan import plan_export
    from wb_ops.export.planned import ExportPlan, load_plan
    from wb_ops.export.report import ExportReport, Progress
    from wb_ops.export.request import ExportRequest
    from wb_ops.export.shards import Shard, ShardResult, execute_shard

__all__ = [
    "ExportPlan",
    "ExportReport",
    "ExportRequest",
    "PlannedRun",
    "Progress",
    "Shard",
    "ShardResult",
    "commit_plan",
    "delete_old_plans",
    "execute_export",
    "execute_shard",
    "load_plan",
    "plan_export",
]

_HOMES = {
    "ExportPlan": "planned",
    "ExportReport": "report",
    "ExportRequest": "request",
    "PlannedRun": "decide",
    "Progress": "report",
    "Shard": "shards",
    "ShardResult": "shards",
    "commit_plan": "commit_plan",
    "delete_old_plans": "old_plans",
    "execute_export": "execute",
    "execute_shard": "shards",
    "load_plan": "planned",
    "plan_export": "plan",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
