"""Computed values written back into W&B runs: plan, then execute, with a journal and an undo.

In:  BackfillRequest, an Api, a Warehouse. Out: changed runs, a journal, a BackfillReport.
May import: errors, settings, tables, client, warehouse. Names load on first use: a code location
that only describes a backfill loads no pyarrow.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wb_ops.backfill.execute import execute_backfill, write_backfill
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
    "write_backfill",
]

_HOMES = {
    "BackfillPlan": "plan",
    "BackfillRecord": "journal",
    "BackfillReport": "report",
    "BackfillRequest": "request",
    "PlannedValue": "planned",
    "execute_backfill": "execute",
    "list_backfills": "journal",
    "plan_backfill": "plan",
    "write_backfill": "execute",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # What has no home of its own is a recipe.
    return getattr(import_module(f"{__name__}.{_HOMES.get(name, 'recipes')}"), name)
