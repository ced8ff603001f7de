"""The page of `history` shows the main metric's curves, small, and never for a range."""

from __future__ import annotations

import base64
import sys

import dagster as dg
import pytest

from wb_ops.dagster import build_wandb_assets, created_days
from wb_ops.dagster.plot import robust_limits


def curves(bench, **options) -> str | None:
    assets = build_wandb_assets(entity="ann", project="demo", retry_policy=None, **options)
    return bench.run(assets).metadata("history").get("wandb/curves")


def test_it_is_a_small_picture_of_a_likely_metric(bench):
    head, data = curves(bench)[:-1].split(",")
    assert head == "![train/loss](data:image/png;base64"
    image = base64.b64decode(data)
    assert image.startswith(b"\x89PNG")
    assert len(image) < 40_000


def test_the_metric_can_be_chosen_or_none(bench):
    assert curves(bench, main_metric="val_acc").startswith("![val_acc](")
    assert curves(bench, main_metric="no such metric") is None
    assert curves(bench, main_metric="") is None


def test_special_floats_and_odd_names_are_drawn_too(bench):
    rows = ['{"_step": 0, "a\\"]loss": NaN}', '{"_step": 1, "a\\"]loss": Infinity}', {"_step": 2}]
    bench.server.seed_run("ann", "demo", "odd", history=rows)
    assert curves(bench, main_metric='a"]loss').startswith('![a" loss](')


def test_names_that_look_like_formulas_or_private_are_drawn_as_they_are(bench):
    bench.server.seed_run(
        "ann", "demo", "odd", display_name="_$x^$", history=[{"a": 1}, {"$b_loss^$": 2}]
    )
    assert curves(bench, main_metric="$b_loss^$").startswith("![$b_loss^$](")


def test_a_value_far_off_does_not_hide_the_others():
    curve = [2.0 - step / 50 for step in range(60)]
    low, high = robust_limits([*curve, 21.3])
    assert low < min(curve)
    assert max(curve) < high < 3
    low, high = robust_limits([*curve, float("inf"), float("nan"), -1e9])
    assert -1 < low < min(curve)
    assert high > max(curve)


def test_where_nothing_is_far_off_all_is_shown():
    assert robust_limits([2.0 - step / 50 for step in range(60)]) is None
    assert robust_limits([1.0] * 60) is None
    assert robust_limits([1.0, 2.0, 900.0]) is None
    two_scales = [0.1, 0.2] * 30 + [900.0, 901.0] * 10
    assert robust_limits(two_scales) is None


def test_without_matplotlib_there_is_no_picture_and_no_complaint(
    bench, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert curves(bench) is None


def test_a_project_without_metrics_has_no_picture(bench):
    for run_id in ("r0", "r1", "r2"):
        bench.server.delete_run("ann", "demo", run_id)
    bench.server.seed_run("ann", "demo", "empty", history=[])
    assert curves(bench) is None


def test_a_range_has_none_because_it_would_be_kept_for_each_day(bench):
    bench.server.seed_run(
        "ann", "demo", "day", created_at="2026-03-03", history=[{"_step": 0, "loss": 1.0}]
    )
    days = created_days("2026-03-01")
    assets = build_wandb_assets(
        entity="ann", project="demo", partitions_def=days, retry_policy=None
    )
    one = bench.run(assets, partition_key="2026-03-03")
    assert "wandb/curves" in one.metadata("history")
    span = {
        "dagster/asset_partition_range_start": "2026-03-03",
        "dagster/asset_partition_range_end": "2026-03-04",
    }
    many = bench.run(assets, tags=span).result.get_asset_materialization_events()
    assert isinstance(many[0], dg.DagsterEvent)
    assert not any("wandb/curves" in event.materialization.metadata for event in many)


def test_it_is_drawn_from_postgresql_too(bench, postgres_server: str):
    bench.url = postgres_server
    assert curves(bench, main_metric="val_acc").startswith("![val_acc](")
