"""The code location loads without network, light, and says what is missing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

import wb_ops.dagster
from dagster_defs import definitions
from wb_ops.dagster import WarehouseResource

DEPLOYABLE = """
from dagster_defs.definitions import defs
loaded = defs()
"""
COMPONENT = """
from wb_ops.dagster import WandbBackfill, WandbProjectComponent
best = WandbBackfill(name="best", recipe='best("val/acc")')
loaded = dg.build_defs_for_component(WandbProjectComponent(
    entity="ann", project="demo", warehouse="duckdb:////data/none.duckdb", has_sensor=True,
    partitions="created_day", start_date="2026-01-01", lookback_days=14, backfills=[best],
))
"""
LOAD = """
import json, socket, sys
def refuse(*args, **options): raise AssertionError("network")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
import dagster as dg
before = set(sys.modules)
{load}
dg.Definitions.validate_loadable(loaded)
keys = sorted(key.path[-1] for key in loaded.resolve_asset_graph().get_all_asset_keys())
heavy = set("pandas pyarrow duckdb wandb airflow matplotlib".split()) & set(sys.modules) - before
print(json.dumps([keys, sorted(heavy)]))
"""


def environment(**more: str) -> dict[str, str]:
    root = os.path.dirname(os.path.dirname(definitions.__file__))
    return {**os.environ, "PYTHONPATH": root, **more}


@pytest.mark.parametrize(
    ("load", "assets"),
    [
        (DEPLOYABLE, ["history", "runs"]),
        (COMPONENT, ["best", "changes", "history", "runs"]),
    ],
    ids=["dagster_defs", "component"],
)
def test_it_loads_without_network_key_or_heavy_imports(load: str, assets: list[str]):
    env = environment(
        WB_OPS_ENTITY="ann", WB_OPS_PROJECT="demo", WB_OPS_WAREHOUSE="duckdb:////data/none.duckdb"
    )
    program = LOAD.replace("{load}", load)
    done = subprocess.run(
        [sys.executable, "-c", program], env=env, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    keys, heavy = json.loads(done.stdout)
    assert keys == assets
    assert heavy == []


def test_missing_variables_are_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WB_OPS_ENTITY", "ann")
    monkeypatch.delenv("WB_OPS_PROJECT", raising=False)
    monkeypatch.delenv("WB_OPS_WAREHOUSE", raising=False)
    with pytest.raises(dg.DagsterInvalidDefinitionError) as caught:
        definitions.defs()
    assert str(caught.value).startswith("Set WB_OPS_PROJECT, WB_OPS_WAREHOUSE for dagster_defs")


def test_the_best_of_a_metric_is_written_back_where_one_is_named(bench, monkeypatch):
    bench.server.append_history("ann", "demo", "r1", [{"_step": 9, "it's/acc": 0.75}])
    for special in ("NaN", "Infinity"):
        bench.server.append_history("ann", "demo", "r1", [f'{{"it\'s/acc": {special}}}'])
    named = {"ENTITY": "ann", "PROJECT": "demo", "WAREHOUSE": bench.resources["warehouse"].url}
    for name, value in {**named, "BEST_METRIC": "it's/acc", "BEST_MODE": "min"}.items():
        monkeypatch.setenv(f"WB_OPS_{name}", value)
    built = definitions.defs()
    resources = {**built.resources, "wandb": bench.resources["wandb"]}
    result = dg.materialize(list(built.assets), resources=resources, instance=bench.instance)
    assert result.success
    with bench.resources["wandb"].get_api() as api:
        found = {run.id: run.summary.get("best_it's/acc") for run in api.runs("ann/demo")}
    assert found == {"r0": None, "r1": 0.75, "r2": None}


def test_a_mode_that_is_none_is_named():
    with pytest.raises(dg.DagsterInvalidDefinitionError, match="WB_OPS_BEST_MODE='mean'"):
        definitions.build_definitions(
            entity="ann", project="demo", warehouse=WarehouseResource(url="duckdb:///x.duckdb"),
            best_metric="loss", best_mode="mean",
        )  # fmt: skip


def test_a_metric_whose_key_a_warehouse_would_cut_is_refused():
    # "ä" is two bytes, "best_" five.
    assert "ä" * 29 in definitions.best_sql("ä" * 29, "max")
    with pytest.raises(dg.DagsterInvalidDefinitionError, match=r"WB_OPS_BEST_METRIC='ä.* 63 bytes"):
        definitions.best_sql("ä" * 29 + "b", "max")


def test_it_materializes_from_explicit_values(bench):
    built = definitions.build_definitions(entity="ann", project="demo", **bench.resources)
    result = dg.materialize(
        list(built.assets), resources=dict(built.resources), instance=bench.instance
    )
    assert result.success
    assert bench.rows("select count(*) as runs from runs") == [{"runs": 3}]


def test_the_schedule_is_off_until_it_is_switched_on():
    built = definitions.build_definitions(
        entity="ann", project="demo", warehouse=WarehouseResource(url="duckdb:///x.duckdb")
    )
    (schedule,) = built.schedules
    assert schedule.default_status is dg.DefaultScheduleStatus.STOPPED
    assert schedule.cron_schedule == "0 * * * *"


def test_the_sensor_is_off_and_launches_the_same(bench):
    built = definitions.build_definitions(entity="ann", project="demo", **bench.resources)
    (sensor,) = built.sensors
    assert sensor.default_status is dg.DefaultSensorStatus.STOPPED
    with dg.build_sensor_context(
        instance=bench.instance,
        definitions=built,
        resources=bench.resources,
    ) as context:
        (request,) = sensor.evaluate_tick(context).run_requests
    assert request.tags["wandb/runs"] == "3"


def test_the_example_instance_is_one(tmp_path):
    source = Path(definitions.__file__).with_name("dagster.yaml")
    (tmp_path / "dagster.yaml").write_text(source.read_text())
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        assert instance.run_retries_enabled
        assert instance.run_retries_max_retries == 2


def test_a_day_without_an_export_is_stale():
    built = definitions.build_definitions(
        entity="ann", project="demo", warehouse=WarehouseResource(url="duckdb:///x.duckdb"),
        best_metric="val_acc",
    )  # fmt: skip
    policies = {
        spec.key.path[-1]: spec.freshness_policy for spec in built.resolve_all_asset_specs()
    }
    assert all(isinstance(policy, dg.FreshnessPolicy) for policy in policies.values())
    assert set(policies) == {"runs", "history", "best_metrics"}


def test_only_public_names_of_dagster_are_used():
    folders = [Path(wb_ops.dagster.__file__).parent, Path(definitions.__file__).parent]
    code = {path: path.read_text() for folder in folders for path in folder.rglob("*.py")}
    assert len(code) >= 8
    assert not [path for path, text in code.items() if "dagster._" in text]
