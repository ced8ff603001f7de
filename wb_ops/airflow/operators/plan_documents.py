"""A backfill's plan as it travels from the task that plans to the task that applies."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import wb_ops
from wb_ops.errors import InvalidRequest

if TYPE_CHECKING:
    from wb_ops.backfill import BackfillPlan

# XCom is the metadata database.
MAX_SIZE_BYTES = 500_000
MAX_TABLE_ROWS = 100
MAX_CELL = 60


def plan_document(plan: BackfillPlan) -> dict[str, Any]:
    """Return what an apply task and a person who approves need, as JSON values.

    It is the plan as `BackfillPlan.to_json` stores it, of the values to set alone.

    Raises:
        InvalidRequest: the plan is too large for XCom (retry: never).
    """
    document: dict[str, Any] = json.loads(replace(plan, values=plan.to_set).to_json())
    del document["counts"]
    document |= {
        "entity": plan.request.entity,
        "project": plan.request.project,
        "dataset": plan.request.dataset_name,
        "target": plan.request.target,
        "planned": plan.counts,
        "table": _table(plan),
    }
    size_bytes = len(json.dumps(document).encode())
    if size_bytes > MAX_SIZE_BYTES:
        raise InvalidRequest(
            f"The plan has {len(plan.to_set)} values and {size_bytes} bytes, which is too much for "
            "XCom: narrow the filters, or plan and apply in one WandbBackfillSummaryOperator."
        )
    return document


def plan_from_document(document: Mapping[str, Any] | str) -> BackfillPlan:
    """Return the plan of a document, or of its JSON text.

    Its values carry what each run held when it was planned, so what somebody has changed since
    is found when it is applied, and left alone.

    Raises:
        InvalidRequest: it is not what `plan_document` returned, or its values were changed
            (retry: never).
    """
    try:
        text = document if isinstance(document, str) else json.dumps(document)
        return wb_ops.BackfillPlan.from_json(text)
    except (InvalidRequest, TypeError) as exc:
        raise InvalidRequest(
            f"plan= is not the result of a WandbPlanBackfillOperator: give its `.output`. {exc}"
        ) from exc


def _table(plan: BackfillPlan) -> str:
    """The plan in Markdown, for the page where it is approved."""
    counts = ", ".join(f"{count} {label}" for label, count in plan.counts.items()) or "nothing"
    lines = [f"**{plan.request.owner}**: {counts}", ""]
    if plan.to_set:
        lines += ["| run | key | old | new |", "| --- | --- | --- | --- |"]
    lines += [
        f"| {_cell(value.run_id)} | {_cell(value.key)} | {_cell(value.old)} | {_cell(value.new)} |"
        for value in plan.to_set[:MAX_TABLE_ROWS]
    ]
    if len(plan.to_set) > MAX_TABLE_ROWS:
        lines += ["", f"and {len(plan.to_set) - MAX_TABLE_ROWS} more"]
    return "\n".join(lines)


def _cell(text: str | None) -> str:
    if text is None:
        return ""
    short = text if len(text) <= MAX_CELL else f"{text[: MAX_CELL - 1]}…"
    return short.replace("|", "\\|").replace("\n", " ")
