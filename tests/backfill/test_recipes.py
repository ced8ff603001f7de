"""Recipes compute from every logged row, one line each."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest

from wb_ops import Api, BackfillRequest, InvalidRequest, Warehouse, execute_backfill, plan_backfill
from wb_ops.backfill import (
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
from wb_ops.devserver import DevServer

HISTORY = [
    {"_step": 0, "acc": 0.1, "loss": 9.0},
    {"_step": 2, "acc": math.nan, "loss": math.inf},
    {"_step": 3, "acc": 0.9, "loss": 2.0, "word": "top"},
    {"_step": 5, "acc": 0.9, "loss": 1.0},
    {"_step": 7, "loss": 3.0},
    {"_step": 9, "acc": math.nan, "flag": True},
]


@pytest.fixture
def run(server: DevServer, api: Api) -> Any:
    server.seed_run(
        "ann", "trials", "r0", history=[json.dumps(row) for row in HISTORY], summary="{}"
    )
    return api.run("ann/trials/r0")


def test_each_gives_its_value(run: Any):
    recipe = (
        max_of("acc") & min_of("loss") & argmax("acc") & argmin("loss") & first("acc")
        & last("loss") & max_of("loss") & at_best("word", of="acc") & last("flag")
        & at_best("acc", of="loss", mode="min", into="acc_there")
    )  # fmt: skip
    assert recipe(run) == {
        "max_acc": 0.9, "min_loss": 1.0, "argmax_acc": 3, "argmin_loss": 5, "first_acc": 0.1,
        "last_loss": 3.0, "max_loss": math.inf, "word_at_best_acc": "top", "last_flag": True,
        "acc_there": 0.9,
    }  # fmt: skip


def test_best_comes_with_its_step_and_what_else_held_there(run: Any):
    assert best("acc", also=["loss", "word"])(run) == {
        "best_acc": 0.9, "best_acc_step": 3, "loss_at_best_acc": 2.0, "word_at_best_acc": "top",
    }  # fmt: skip
    assert best("loss", mode="min", also="acc", into="low")(run) == {
        "low": 1.0, "low_step": 5, "acc_at_low": 0.9,
    }  # fmt: skip


def test_nan_is_no_extreme_but_may_be_first_or_last(run: Any):
    assert math.isnan(last("acc")(run)["last_acc"])
    table = pa.table({"_step": [0, 1], "x": [math.nan, math.nan]})
    assert max_of("x").of_history(table) == {"max_x": None}


NAN, INF = math.nan, math.inf
TIES = [{"x": 2.0, "y": "a"}, {"x": 5.0, "y": "b"}, {"x": 5.0, "y": "c"}, {"x": 2.0}]
WITH_NAN = [{"x": NAN, "y": "a"}, {"x": 1.0, "y": "b"}, {"x": 3.0}, {"x": NAN, "y": "d"}]


@pytest.mark.parametrize(
    ("recipe", "ties", "with_nan", "all_nan", "infinite"),
    [
        (max_of("x", into="v"), 5.0, 3.0, None, INF),
        (min_of("x", into="v"), 2.0, 1.0, None, -INF),
        (argmax("x", into="v"), 1, 2, None, 0),
        (argmin("x", into="v"), 0, 1, None, 2),
        (first("x", into="v"), 2.0, NAN, NAN, INF),
        (last("x", into="v"), 2.0, NAN, NAN, -INF),
        (at_best("y", of="x", into="v"), "b", None, None, "a"),
        (at_best("y", of="x", mode="min", into="v"), "a", "b", None, None),
    ],
    ids=["max", "min", "argmax", "argmin", "first", "last", "at_best", "at_best min"],
)
def test_ties_nan_gaps_and_infinities(
    recipe: Recipe, ties: Any, with_nan: Any, all_nan: Any, infinite: Any
):
    """Of equals the first counts; NaN is no extreme; a metric that was not logged has no value."""
    infinities = [{"x": INF, "y": "a"}, {"x": 0.0}, {"x": -INF}]
    for rows, wanted in (
        (TIES, ties), (WITH_NAN, with_nan), ([{"x": NAN, "y": "a"}], all_nan),
        (infinities, infinite), ([{"z": 1.0}], None),
    ):  # fmt: skip
        found = recipe.of_history(history(rows))["v"]
        assert repr(found) == repr(wanted)


def history(rows: list[dict[str, Any]]) -> pa.Table:
    """A history as the client gives it: a step and a column for each metric, null where none."""
    return pa.Table.from_pylist(
        [{"_step": step, **dict.fromkeys(("x", "y")), **row} for step, row in enumerate(rows)],
        schema=pa.schema([("_step", pa.int64()), ("x", pa.float64()), ("y", pa.string())]),
    )


def test_a_metric_that_was_never_logged_has_no_value(run: Any):
    assert (best("none") & first("none"))(run) == {
        "best_none": None, "best_none_step": None, "first_none": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ('best("acc", mode="max", also=["loss"])', lambda: best("acc", also=["loss"])),
        ("at_best('word', of='acc')", lambda: at_best("word", of="acc")),
        (" last('acc', into='end') ", lambda: last("acc", into="end")),
    ],
)
def test_the_text_form_is_the_python_form(text: str, same: Callable[[], Recipe], run: Any):
    assert parse_recipe(text).reads == same().reads
    assert repr(parse_recipe(text)(run)) == repr(same()(run))


@pytest.mark.parametrize(
    "text",
    ["acc", "best()", "best(acc)", "worst('a')", "best('a'", "__import__('os')",
     "best(open('x'))", "best('a', mode='most')", "os.system('x')", "best(**{'metric': 1})"],
)  # fmt: skip
def test_a_text_that_is_no_recipe_is_refused(text: str):
    with pytest.raises(InvalidRequest):
        parse_recipe(text)


def test_two_recipes_that_write_one_key_are_refused():
    with pytest.raises(InvalidRequest, match="max_acc: rename"):
        max_of("acc") & argmax("acc", into="max_acc")


def test_one_line_writes_the_best_of_all_finished_runs_in_few_requests(
    api: Api, warehouse: Warehouse, server: DevServer
):
    server.seed_runs(
        {"entity": "ann", "project": "trials", "run_id": f"r{index}", "summary": "{}",
         "history": [{"_step": 0, "acc": index, "loss": 1}, {"_step": 1, "acc": 0, "loss": 2}]}
        for index in range(1, 31)
    )  # fmt: skip
    server.seed_run("ann", "trials", "silent", summary="{}")
    server.seed_run("ann", "trials", "live", summary="{}", state="running")
    request = BackfillRequest(
        "ann", "trials", compute=best("acc", also="loss"), policy="only_missing"
    )
    plan = plan_backfill(request, api, warehouse)
    assert plan.counts == {
        "set": 90, "skipped (missing value)": 3, "skipped (running)": 3,
    }  # fmt: skip
    asked = [record for record in server.requests if record.origin == "api"]
    assert [record.operation for record in asked].count("Runs") == 1
    assert len(asked) <= 4, "one listing, and the sources of 20 histories a request"
    execute_backfill(plan, api, warehouse)
    assert dict(api.run("ann/trials/r7").summary) == {
        "best_acc": 7, "best_acc_step": 0, "loss_at_best_acc": 1,
    }  # fmt: skip
    server.requests.clear()
    again = plan_backfill(request, api, warehouse)
    assert again.to_set == ()
    assert server.requests.operations().count("Runs") == 1
    assert len(server.requests) <= 3, "only the run without a value is read again"
