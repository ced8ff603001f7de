"""An export checks itself in its own step."""

# No postponed annotations here: Dagster reads those of assets as they stand.

import dagster as dg
import pytest

from wb_ops.dagster import WandbChecks, WarehouseResource, build_wandb_assets, created_days
from wb_ops.dagster.check_results import Loaded, evaluate
from wb_ops.devserver import Fault, Matcher, Responder


def results(ran) -> dict[str, dg.AssetCheckEvaluation]:
    found = ran.result.get_asset_check_evaluations()
    return {f"{one.asset_key.path[-1]}.{one.check_name}": one for one in found}


def export(**options) -> dg.AssetsDefinition:
    return build_wandb_assets(entity="ann", project="demo", retry_policy=None, **options)


def break_one_history(bench) -> None:
    broken = Fault(Matcher(path="/exports/*", nth=1), Responder.truncated(100), times=1)
    bench.server.faults.add(broken)


def test_all_checks_pass_on_a_sound_export(bench):
    found = results(bench.run())
    assert {name: one.passed for name, one in found.items()} == {
        "history.history_complete": True,
        "history.unique_steps": True,
        "history.schema_change": True,
        "runs.schema_change": True,
    }


def test_a_history_that_does_not_add_up_is_an_error_until_it_does(bench):
    break_one_history(bench)
    ran = bench.run()
    first = results(ran)["history.history_complete"]
    assert not first.passed
    assert first.severity is dg.AssetCheckSeverity.ERROR
    assert first.description == "1 of 3 histories do not add up."
    assert "| failed |" in first.metadata["wandb/receipts"].value
    logged = [entry.user_message for entry in bench.instance.all_logs(ran.result.run_id)]
    assert "1 of 3 receipts do not add up: see them in the metadata" in logged
    assert results(bench.run())["history.history_complete"].passed


def test_repeated_steps_are_found(bench):
    # What no export does, done by hand: a row twice, of a run that the next load touches.
    bench.run()
    duckdb = pytest.importorskip("duckdb")
    with duckdb.connect(str(bench.folder / "warehouse.duckdb")) as connection:
        connection.execute("alter table ann__demo.history rename to history_once")
        connection.execute(
            "create table ann__demo.history as select * from ann__demo.history_once"
            " union all select * from ann__demo.history_once where run_id = 'r1' and _step = 0"
        )
        (load_id,) = connection.execute(
            "select max(load_id) from ann__demo._wb_receipts"
        ).fetchone()
    (asset,) = [key for key in export().keys if key.path[-1] == "history"]
    with dg.instance_for_test() as instance:
        bench.instance = instance
        ran = bench.run(recheck(asset, load_id))
    found = results(ran)["history.unique_steps"]
    assert not found.passed
    assert found.description == "1 steps are there twice, such as of run r1."


def recheck(key: dg.AssetKey, load_id: str) -> dg.AssetsDefinition:
    """An asset of the same name that answers the checks of an earlier load, and writes nothing."""
    checks = WandbChecks()

    @dg.multi_asset(specs=[dg.AssetSpec(key)], check_specs=checks.specs({"history": key}))
    def again(context: dg.AssetExecutionContext, warehouse: WarehouseResource):
        store, none = warehouse.get_warehouse(), dg.TableSchema(columns=[])
        loaded = Loaded(context, store, "ann__demo", "history", key, None, load_id, "", none)
        answers = list(evaluate(checks, loaded))
        yield dg.MaterializeResult(asset_key=key)
        yield from answers

    return again


def test_a_new_metric_is_a_change_of_columns_once(bench):
    bench.run()
    bench.server.seed_run("ann", "demo", "new", history=[{"_step": 0, "f1": 0.5}])
    found = results(bench.run())["history.schema_change"]
    assert not found.passed
    assert found.severity is dg.AssetCheckSeverity.WARN
    assert found.description == "added: f1"
    assert results(bench.run())["history.schema_change"].passed


@pytest.mark.parametrize(
    ("bounds", "passed"),
    [({"min_rows": 18}, True), ({"min_rows": 19}, False), ({"max_rows": 17}, False)],
)
def test_rows_have_bounds_where_they_are_given(bench, bounds: dict[str, int], passed: bool):
    found = results(bench.run(export(checks=WandbChecks(**bounds))))
    assert found["history.row_count"].passed is passed


def test_bounds_are_those_of_the_partition(bench):
    bench.server.seed_run(
        "ann", "demo", "day", created_at="2026-03-03T12:00:00", history=[{"_step": 0, "a": 1}]
    )
    assets = export(checks=WandbChecks(max_rows=1), partitions_def=created_days("2026-03-01"))
    found = results(bench.run(assets, partition_key="2026-03-03"))
    assert found["runs.row_count"].passed
    assert found["history.row_count"].passed


def test_a_check_alone_can_be_selected(bench):
    assets = export()
    key = dg.AssetCheckKey(dg.AssetKey(["ann__demo", "history"]), "history_complete")
    job = dg.define_asset_job("check_only", dg.AssetSelection.checks(key))
    defs = dg.Definitions(assets=[assets], jobs=[job], resources=bench.resources)
    ran = defs.resolve_job_def("check_only").execute_in_process(instance=bench.instance)
    assert ran.success
    assert [one.check_name for one in ran.get_asset_check_evaluations()] == ["history_complete"]
    assert ran.get_asset_materialization_events() == []


def test_a_blocking_check_holds_back_what_is_downstream(bench):
    break_one_history(bench)
    ran = bench.run(export(checks=WandbChecks(blocking=True)), bench.best_metrics())
    assert not ran.success
    assert ran.materialized == {"runs", "history"}


def test_checks_can_be_left_out(bench):
    none = WandbChecks(history_complete=False, unique_steps=False, schema_change=False)
    assert results(bench.run(export(checks=none))) == {}


@pytest.mark.parametrize("what", ["checks", "assets"])
def test_partitioned_assets_without_a_partition_export_nothing(bench, what: str):
    assets = export(partitions_def=created_days("2026-03-01"))
    chosen = dg.AssetSelection.checks_for_assets(assets)
    if what == "assets":
        chosen = dg.AssetSelection.assets(assets)
    job = dg.define_asset_job("answer", chosen)
    defs = dg.Definitions(assets=[assets], jobs=[job], resources=bench.resources)
    bench.server.requests.clear()
    ran = defs.resolve_job_def("answer").execute_in_process(
        instance=bench.instance, raise_on_error=False
    )
    (failure,) = [event for event in ran.all_events if event.is_step_failure]
    assert "this launch has none" in failure.step_failure_data.user_failure_data.description
    assert len(bench.server.requests) == 0
