"""Materializing puts a project into the warehouse, and again changes nothing."""

from __future__ import annotations

import dagster as dg

from wb_ops.dagster import WandbTableProps, WandbTranslator, build_wandb_assets
from wb_ops.devserver import Fault, Matcher, Responder

ALL_ROWS = "select * exclude (_load_id) from {} order by all"


def tables(bench) -> list[list[dict]]:
    return [bench.rows(ALL_ROWS.format(table)) for table in ("runs", "history")]


def test_materializing_twice_gives_the_same_tables(bench):
    assert bench.run().materialized == {"runs", "history"}
    first = tables(bench)
    assert [len(rows) for rows in first] == [3, 18]
    again = bench.run()
    assert again.success
    assert tables(bench) == first
    assert again.metadata("history")["wandb/history_rows_written"] == 0


def test_a_run_that_went_on_is_read_again(bench):
    bench.run()
    before = tables(bench)
    bench.server.append_history("ann", "demo", "r0", [{"_step": 9, "val_acc": 0.9}])
    assert bench.run().success
    after = tables(bench)
    assert len(after[1]) == len(before[1]) + 1


def test_metadata_is_what_people_look_for(bench):
    shown = bench.run().metadata("history")
    assert shown["dagster/row_count"] == 18
    assert shown["dagster/table_name"] == "ann__demo.history"
    assert shown["dagster/uri"] == bench.warehouse.url
    assert shown["wandb/project"] == f"{bench.server.url}/ann/demo"
    assert shown["wandb/load_id"].startswith("load-")
    assert shown["wandb/runs_written"] == 3
    assert shown["wandb/statuses"] == {"complete": 3}
    assert shown["wandb/requests"] > 0
    assert shown["wandb/received_bytes"] > 0
    assert shown["wandb/seconds"] > 0
    assert shown["wandb/waited_s"] == 0


def test_the_column_schema_has_the_metrics_under_their_own_names(bench):
    schema = bench.run().metadata("history")["dagster/column_schema"]
    columns = {column.name: column for column in schema.columns}
    assert columns["train__loss"].description == "train/loss"
    assert columns["train__loss"].type == "DOUBLE"
    assert not columns["_step"].constraints.nullable
    assert [column["column_name"] for column in bench.rows(
        "select column_name from duckdb_columns() where table_name = 'history'"
        " and schema_name = 'ann__demo' order by column_name"
    )] == sorted(columns)  # fmt: skip


def test_the_receipts_are_a_table_with_links(bench):
    text = bench.run().metadata("runs")["wandb/receipts"]
    assert f"| [r0]({bench.server.url}/ann/demo/runs/r0) | complete | 5 | 5 | 4 |" in text


def test_a_run_that_cannot_be_read_is_shown_first_and_the_rest_arrives(bench):
    broken = Fault(Matcher(path="/exports/*", nth=1), Responder.truncated(100), times=1)
    bench.server.faults.add(broken)
    ran = bench.run()
    assert ran.success
    shown = ran.metadata("history")
    assert shown["wandb/statuses"] == {"complete": 2, "failed": 1}
    assert "| failed |" in shown["wandb/receipts"].splitlines()[2]
    assert bench.run().metadata("history")["wandb/statuses"] == {"complete": 1}


def test_long_tables_are_capped(bench):
    bench.server.seed_runs(
        {"entity": "ann", "project": "demo", "run_id": f"many{number}", "history": [{"a": 1}]}
        for number in range(60)
    )
    text = bench.run().metadata("runs")["wandb/receipts"]
    assert text.count("\n| [") == 50
    assert "50 of 63" in text


def test_one_table_alone_is_exported_with_the_other(bench):
    ran = bench.run(selection=[dg.AssetKey(["ann__demo", "runs"])])
    assert ran.success
    assert ran.materialized == {"runs"}
    assert [len(rows) for rows in tables(bench)] == [3, 18]


def test_a_launch_can_ask_for_everything_again(bench):
    bench.run()
    config = {"ops": {"ann__demo_export": {"config": {"mode": "full"}}}}
    shown = bench.run(run_config=config).metadata("runs")
    assert shown["wandb/mode"] == "full"
    assert shown["wandb/history_rows_written"] == 18


def test_a_translator_renames_assets_and_the_backfill_follows(bench):
    class OurNames(WandbTranslator):
        def get_asset_spec(self, props: WandbTableProps) -> dg.AssetSpec:
            spec = super().get_asset_spec(props)
            return spec.replace_attributes(key=["ml", props.table], owners=["team:ml"])

    export = build_wandb_assets(entity="ann", project="demo", translator=OurNames())
    best = bench.best_metrics(translator=OurNames())
    assert export.keys == {dg.AssetKey(["ml", "runs"]), dg.AssetKey(["ml", "history"])}
    (spec,) = best.specs
    assert {dependency.asset_key for dependency in spec.deps} == export.keys
    assert bench.run(export, best).success


def test_pools_and_retries_are_set_by_default():
    export = build_wandb_assets(entity="ann", project="demo")
    assert export.op.pool == "wandb_api"
    assert export.op.retry_policy.max_retries == 4
