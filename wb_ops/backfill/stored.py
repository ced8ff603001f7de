"""A plan as JSON: what its execution needs of the request, and its values."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, get_args

from wb_ops.backfill.planned import Action, PlannedValue
from wb_ops.backfill.request import BackfillRequest, Compute
from wb_ops.backfill.targets import Target
from wb_ops.client.runs import Run
from wb_ops.errors import InvalidRequest

# The source of the values stays behind: the plan holds what came of it.
_KEPT = (
    "entity", "project", "dataset", "target", "policy", "filters", "include_running",
    "include_incomplete", "safe", "max_changes", "undo", "resume",
)  # fmt: skip


def request_document(request: BackfillRequest) -> dict[str, object]:
    """Return what an execution needs of a request, as JSON values."""
    return {name: getattr(request, name) for name in _KEPT}


def read_document(text: str) -> tuple[dict[str, Any], BackfillRequest, tuple[PlannedValue, ...]]:
    """Return the JSON object of a plan, its request and its values.

    Raises:
        InvalidRequest: the text is no plan (retry: never).
    """
    try:
        found = json.loads(text)
        values = tuple(_value(value) for value in found["values"])
        kept = {name: found["request"][name] for name in _KEPT}
        is_computed = kept["undo"] is None and kept["resume"] is None
        request = BackfillRequest(**kept, compute=_computed(values) if is_computed else None)
        return {"backfill_id": found["backfill_id"], "hash": found["hash"]}, request, values
    except (ValueError, KeyError, TypeError) as exc:
        raise InvalidRequest(
            f"This is no plan of a backfill ({type(exc).__name__}: {exc}): give what "
            "BackfillPlan.to_json() returned, or `wb-ops backfill plan --out plan.json` wrote."
        ) from exc


def _value(found: Mapping[str, Any]) -> PlannedValue:
    value = PlannedValue(**found)
    if value.action not in get_args(Action) or value.target not in get_args(Target):
        raise ValueError(f"action {value.action!r} of target {value.target!r}")
    for name in [field.name for field in fields(value) if field.name not in ("old", "new")]:
        if not isinstance(getattr(value, name), str):
            raise TypeError(f"{name} is no text")
    for text in (value.old, value.new):
        json.loads(text or "null")
    return value


def _computed(values: Sequence[PlannedValue]) -> Compute:
    """The computation that gave these values: it looks them up."""
    known: dict[str, dict[str, Any]] = {}
    for value in values:
        known.setdefault(value.run_id, {})[value.key] = json.loads(value.new or "null")

    def compute(run: Run) -> Mapping[str, Any]:
        return known.get(run.id, {})

    return compute
