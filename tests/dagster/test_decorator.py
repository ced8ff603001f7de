"""`@wandb_assets`: a body of one's own around the export."""

# No postponed annotations here: Dagster reads those of assets as they stand.

from typing import Any

import dagster as dg
import pytest

from wb_ops.dagster import (
    WandbChecks,
    WandbResource,
    WarehouseResource,
    build_wandb_assets,
    created_days,
    wandb_assets,
)
from wb_ops.devserver import Fault, Matcher, Responder


@wandb_assets(entity="ann", project="demo", keys=["val_acc"], checks=WandbChecks(max_rows=3))
def nano_gpt(context: dg.AssetExecutionContext, wandb: WandbResource, warehouse: WarehouseResource):
    """A body that marks what it reports."""
    for event in wandb.export(context, warehouse, mode="reconcile"):
        if isinstance(event, dg.MaterializeResult):
            event = event._replace(metadata={**event.metadata, "ours": "yes"})
        yield event


def test_the_body_exports_and_adds_to_what_is_reported(bench):
    ran = bench.run(nano_gpt)
    assert ran.materialized == {"runs", "history"}
    assert ran.metadata("history")["ours"] == "yes"
    assert ran.metadata("history")["wandb/mode"] == "reconcile"
    assert bench.rows("select count(*) as rows from history") == [{"rows": 18}]


def test_what_the_decorator_was_given_reaches_the_export(bench):
    ran = bench.run(nano_gpt)
    columns = [one.name for one in ran.metadata("history")["dagster/column_schema"].columns]
    assert "val_acc" in columns
    assert "train__loss" not in columns
    checks = {
        (one.asset_key.path[-1], one.check_name): one.passed
        for one in ran.result.get_asset_check_evaluations()
    }
    assert checks["runs", "row_count"]
    assert not checks["history", "row_count"]


def test_it_is_named_like_the_function_and_has_the_usual_pool_and_retries():
    usual = build_wandb_assets(entity="ann", project="demo")
    assert nano_gpt.op.name == "nano_gpt"
    assert nano_gpt.keys == usual.keys
    assert nano_gpt.op.pool == usual.op.pool == "wandb_api"
    assert nano_gpt.op.retry_policy == usual.op.retry_policy


def test_a_limit_inside_the_body_is_dagsters_to_wait(bench):
    bench.wandb = {"max_wait_s": 0.0}
    bench.server.faults.add(Fault(Matcher(operation="Runs"), Responder.rate_limited(0.3), times=1))
    ran = bench.run(nano_gpt)
    assert ran.success
    assert len(ran.waits) == 1


def test_partitions_narrow_the_export(bench):
    @wandb_assets(entity="ann", project="demo", partitions_def=created_days("2026-03-01"))
    def daily(
        context: dg.AssetExecutionContext, wandb: WandbResource, warehouse: WarehouseResource
    ):
        yield from wandb.export(context, warehouse)

    for day in ("02", "03"):
        bench.server.seed_run(
            "ann", "demo", f"r{day}", created_at=f"2026-03-{day}T10:00:00", history=[{"a": 1}]
        )
    assert bench.run(daily, partition_key="2026-03-03").success
    assert bench.rows("select run_id from runs") == [{"run_id": "r03"}]


def test_what_is_exported_is_on_the_page_of_the_asset():
    filters = {"tags": {"$in": ["baseline"]}}
    assets = build_wandb_assets(
        entity="ann", project="demo", filters=filters, keys=["a"], main_metric="a"
    )
    for spec in assets.specs:
        shown: Any = spec.metadata["wandb/export"].value
        assert shown["request"]["filters"] == filters
        assert list(shown["request"]["keys"]) == ["a"]
        assert shown["main_metric"] == "a"


def test_outside_of_the_decorator_the_helper_says_where_it_belongs(bench):
    @dg.multi_asset(specs=[dg.AssetSpec("own")])
    def own(context: dg.AssetExecutionContext, wandb: WandbResource, warehouse: WarehouseResource):
        yield from wandb.export(context, warehouse)

    with pytest.raises(dg.DagsterInvalidDefinitionError, match="inside the body of @wandb_assets"):
        dg.materialize([own], resources=bench.resources, instance=bench.instance)
