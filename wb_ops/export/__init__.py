"""W&B runs and histories into a warehouse: plan, then execute.

In:  ExportRequest, an Api, a Warehouse. Out: committed tables and an ExportReport.
May import: errors, settings, tables, client, warehouse. Names load on first use: a code location
that only describes an export loads no pyarrow.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wb_ops.export.execute import execute_export
    from wb_ops.export.plan import ExportPlan, PlannedRun, plan_export
    from wb_ops.export.report import ExportReport, Progress
    from wb_ops.export.request import ExportRequest

__all__ = [
    "ExportPlan",
    "ExportReport",
    "ExportRequest",
    "PlannedRun",
    "Progress",
    "execute_export",
    "plan_export",
]

_HOMES = {
    "ExportPlan": "plan",
    "ExportReport": "report",
    "ExportRequest": "request",
    "PlannedRun": "plan",
    "Progress": "report",
    "execute_export": "execute",
    "plan_export": "plan",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
