"""Computed values written back into W&B runs: plan, then execute, with a journal and an undo.

In:  BackfillRequest, an Api, a Warehouse. Out: changed runs, a journal, a BackfillReport.
May import: errors, settings, tables, client, warehouse.
"""

from wb_ops.backfill.execute import execute_backfill
from wb_ops.backfill.journal import BackfillRecord, list_backfills
from wb_ops.backfill.plan import BackfillPlan, plan_backfill
from wb_ops.backfill.planned import PlannedValue
from wb_ops.backfill.recipes import (
    Recipe,
    argmax,
    argmin,
    at_best,
    best,
    first,
    last,
    max_of,
    min_of,
    parse_recipe,
)
from wb_ops.backfill.report import BackfillReport
from wb_ops.backfill.request import BackfillRequest

__all__ = [
    "BackfillPlan",
    "BackfillRecord",
    "BackfillReport",
    "BackfillRequest",
    "PlannedValue",
    "Recipe",
    "argmax",
    "argmin",
    "at_best",
    "best",
    "execute_backfill",
    "first",
    "last",
    "list_backfills",
    "max_of",
    "min_of",
    "parse_recipe",
    "plan_backfill",
]
