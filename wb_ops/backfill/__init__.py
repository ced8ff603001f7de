"""Computed values written back into W&B summaries: plan, then execute, with a journal.

In:  BackfillRequest, an Api, a Warehouse. Out: changed summaries, a journal, a BackfillReport.
May import: errors, settings, tables, client, warehouse.
"""

from wb_ops.backfill.execute import BackfillReport, execute_backfill
from wb_ops.backfill.plan import BackfillPlan, PlannedValue, plan_backfill
from wb_ops.backfill.request import BackfillRequest

__all__ = [
    "BackfillPlan",
    "BackfillReport",
    "BackfillRequest",
    "PlannedValue",
    "execute_backfill",
    "plan_backfill",
]
