"""A backfill's plan as it travels from the task that plans to the task that applies."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import groupby
from typing import TYPE_CHECKING, Any

import wb_ops
from wb_ops.errors import InvalidRequest

if TYPE_CHECKING:
    from wb_ops.backfill import BackfillPlan, PlannedValue
    from wb_ops.backfill.request import Compute
    from wb_ops.client.runs import Run

# XCom is the metadata database.
MAX_SIZE_BYTES = 500_000
MAX_TABLE_ROWS = 100
MAX_CELL = 60


def plan_document(plan: BackfillPlan) -> dict[str, Any]:
    """Return what an apply task and a person who approves need, as JSON values.

    Raises:
        InvalidRequest: the plan is too large for XCom (retry: never).
    """
    request = plan.request
    document = {
        "backfill_id": plan.backfill_id,
        "entity": request.entity,
        "project": request.project,
        "dataset": request.dataset_name,
        "planned": plan.counts,
        "target": request.target,
        "include_running": request.include_running,
        "values": [asdict(value) for value in plan.to_set],
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
        InvalidRequest: it is not what `plan_document` returned (retry: never).
    """
    from wb_ops.backfill import PlannedValue

    try:
        found = json.loads(document) if isinstance(document, str) else document
        values = tuple(PlannedValue(**value) for value in found["values"])
        request = wb_ops.BackfillRequest(
            entity=found["entity"],
            project=found["project"],
            dataset=found["dataset"],
            target=found["target"],
            include_running=found["include_running"],
            compute=_computed(values),
        )
        return wb_ops.BackfillPlan(request, found["backfill_id"], values)
    except (ValueError, KeyError, TypeError) as exc:
        raise InvalidRequest(
            "plan= is not the result of a WandbPlanBackfillOperator: give its `.output`."
        ) from exc


def _computed(values: Sequence[PlannedValue]) -> Compute:
    """The computation that gave these values: it looks them up."""
    known = {
        run_id: {value.key: json.loads(value.new or "null") for value in of_one_run}
        for run_id, of_one_run in groupby(values, key=lambda value: value.run_id)
    }

    def compute(run: Run) -> Mapping[str, Any]:
        return known.get(run.id, {})

    return compute


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
