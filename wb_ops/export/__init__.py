"""W&B runs and histories into a warehouse: plan, then execute.

In:  ExportRequest, an Api, a Warehouse. Out: committed tables and an ExportReport.
May import: errors, settings, tables, client, warehouse.
"""

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
