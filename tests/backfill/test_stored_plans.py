"""A plan that was written to a file is executed as it was shown, or refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from wb_ops import (
    Api,
    BackfillPlan,
    BackfillRequest,
    InvalidRequest,
    Warehouse,
    execute_backfill,
    plan_backfill,
)
from wb_ops.devserver import DevServer

VALUES = {"acc": float("nan"), "word": "ß", "big": 2**60, "inf": float("-inf")}
REQUEST = BackfillRequest(
    "ann", "trials", compute=lambda run: VALUES, filters={"name": {"$in": ["r00", "r01", "live"]}},
    safe=True, max_changes=8,
)  # fmt: skip
Change = Callable[[dict[str, Any]], object]


@pytest.mark.usefixtures("project")
def test_it_comes_back_as_it_was_and_writes_what_it_shows(
    api: Api, warehouse: Warehouse, text_of: Callable[..., Any]
):
    plan = plan_backfill(REQUEST, api, warehouse)
    read = BackfillPlan.from_json(plan.to_json())
    assert (read.values, read.hash, read.backfill_id) == (plan.values, plan.hash, plan.backfill_id)
    assert (read.request.safe, read.request.max_changes) == (True, 8)
    assert read.to_json() == plan.to_json()
    report = execute_backfill(read, api, warehouse)
    assert (len(report.written), report.backfill_id) == (8, plan.backfill_id)
    assert '"acc": NaN' in text_of("r00")
    assert json.loads(text_of("r01"))["big"] == 2**60


@pytest.mark.usefixtures("project")
def test_an_undo_and_a_resume_can_be_stored_too(api: Api, warehouse: Warehouse):
    done = execute_backfill(plan_backfill(REQUEST, api, warehouse), api, warehouse)
    for source in ("undo", "resume"):
        request = BackfillRequest("ann", "trials", **{source: done.backfill_id})
        plan = plan_backfill(request, api, warehouse)
        assert BackfillPlan.from_json(plan.to_json()) == plan


@pytest.mark.usefixtures("project")
def test_what_changed_since_is_a_conflict(api: Api, warehouse: Warehouse, project: DevServer):
    text = plan_backfill(REQUEST, api, warehouse).to_json()
    project.edit_run("ann", "trials", "r00", summary='{"word": "theirs"}')
    report = execute_backfill(BackfillPlan.from_json(text), api, warehouse)
    assert {value.key for value in report.conflicts} == {"acc", "word"}


def plan_text() -> str:
    from wb_ops.backfill import PlannedValue

    values = (PlannedValue("r00", "best", "1", "2", "set"),)
    return BackfillPlan(replace(REQUEST, filters={}), "bf-1", values).to_json()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda plan: plan["values"][0].update(new="3"), "changed after it was made"),
        (lambda plan: plan.update(project="x/y", hash="0"), "changed after it was made"),
        (lambda plan: plan["values"][0].update(action="hope"), "no plan of a backfill"),
        (lambda plan: plan["values"][0].update(new="{"), "no plan of a backfill"),
        (lambda plan: plan["values"][0].update(key=3), "no plan of a backfill"),
        (lambda plan: plan["values"][0].pop("run_id"), "no plan of a backfill"),
        (lambda plan: plan.pop("request"), "no plan of a backfill"),
        (lambda plan: plan["request"].update(policy="hope"), "policy='hope'"),
    ],
)
def test_a_plan_that_was_changed_is_refused(change: Change, words: str):
    document = json.loads(plan_text())
    change(document)
    with pytest.raises(InvalidRequest, match=words):
        BackfillPlan.from_json(json.dumps(document))


@pytest.mark.parametrize("text", ["", "[]", "3", "{}"])
def test_anything_else_is_no_plan(text: str):
    with pytest.raises(InvalidRequest, match="no plan of a backfill"):
        BackfillPlan.from_json(text)
