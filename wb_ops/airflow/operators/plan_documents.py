"""A backfill's plan as it travels from the task that plans to the task that applies.

The values are a file on the staging URL. XCom, which is the metadata database, has where it is, a
hash of what was planned, counts, and a short table for whoever approves it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import wb_ops
from wb_ops.errors import InvalidRequest, NotFound

if TYPE_CHECKING:
    from wb_ops.backfill import BackfillPlan
    from wb_ops.backfill.planned import PlannedValue

MAX_TABLE_ROWS = 100
MAX_REASON_ROWS = 50
MAX_CELL = 60
_SET = ("run", "key", "old", "new")
_LEFT = ("run", "key", "not written because", "there")


def store_plan(plan: BackfillPlan, staging: str) -> dict[str, Any]:
    """Write the values to set into `staging`; return what an apply task and a person need.

    The file is the plan as `BackfillPlan.to_json` stores it, `backfill-ID.json`.

    Raises:
        InvalidRequest: the storage needs a package that is missing (retry: never).
        WarehouseError: the folder cannot be written.
    """
    # Here, because Dag files import this module.
    from wb_ops.export.folder import open_folder

    data = replace(plan, values=plan.to_set).to_json().encode()
    folder, name = open_folder(staging.rstrip("/")), f"backfill-{plan.backfill_id}.json"
    folder.write(name, data)
    return {
        "plan_uri": f"{folder.uri}/{name}",
        "sha256": hashlib.sha256(data).hexdigest(),
        "backfill_id": plan.backfill_id,
        "entity": plan.request.entity,
        "project": plan.request.project,
        "dataset": plan.request.dataset_name,
        "target": plan.request.target,
        "planned": plan.counts,
        "table": _table(plan),
    }


def load_stored_plan(document: Mapping[str, Any] | str) -> BackfillPlan:
    """Return the plan that a planning task has stored, from what it returned or its JSON text.

    Its values carry what each run held when it was planned, so what somebody has changed since
    is found when it is applied, and left alone.

    Raises:
        InvalidRequest: it is not what `store_plan` returned, or the file is not the plan of then
            (retry: never).
        NotFound: the file is gone (retry: never).
    """
    from wb_ops.export.folder import open_folder

    uri, wanted = _named(document)
    folder, _, name = uri.rpartition("/")
    data = open_folder(folder).read(name)
    if data is None:
        raise NotFound("The plan's file is gone from the staging folder: plan the backfill again.")
    if hashlib.sha256(data).hexdigest() != wanted:
        raise InvalidRequest(
            "The plan's file is not what the planning task has stored: nothing was written. Plan "
            "the backfill again, and have it approved again."
        )
    return wb_ops.BackfillPlan.from_json(data.decode())


def _named(document: Mapping[str, Any] | str) -> tuple[str, str]:
    try:
        found: Any = json.loads(document) if isinstance(document, str) else document
        return str(found["plan_uri"]), str(found["sha256"])
    except (ValueError, KeyError, TypeError) as exc:
        raise InvalidRequest(
            "plan= is not the result of a WandbPlanBackfillOperator: give its `.output`."
        ) from exc


def _table(plan: BackfillPlan) -> str:
    """The plan in Markdown, for the page where it is approved."""
    counts = ", ".join(f"{count} {label}" for label, count in plan.counts.items()) or "nothing"
    to_set = [(v.run_id, v.key, v.old, v.new) for v in plan.to_set]
    left = [_left(value) for value in plan.values if value.action in ("conflict", "skipped")]
    lines = [f"**{plan.request.owner}**: {counts}"]
    lines += _rows(_SET, to_set, MAX_TABLE_ROWS)
    lines += _rows(_LEFT, left, MAX_REASON_ROWS)
    return "\n".join(lines)


def _left(value: PlannedValue) -> tuple[str | None, ...]:
    reason = f"{value.action}: {value.reason}" if value.reason else value.action
    return value.run_id, value.key, reason, value.old


def _rows(head: Sequence[str], rows: Sequence[Iterable[str | None]], longest: int) -> list[str]:
    if not rows:
        return []
    lines = ["", f"| {' | '.join(head)} |", "| --- | --- | --- | --- |"]
    lines += [f"| {' | '.join(map(_cell, row))} |" for row in rows[:longest]]
    return lines + (["", f"and {len(rows) - longest} more"] if len(rows) > longest else [])


def _cell(text: str | None) -> str:
    if text is None:
        return ""
    short = text if len(text) <= MAX_CELL else f"{text[: MAX_CELL - 1]}…"
    return short.replace("|", "\\|").replace("\n", " ")
