"""The component passes Dagster's own suites, and loads, runs and refuses as its YAML says."""

# No postponed annotations here: Dagster reads those of components as they stand.

import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster.components.testing import create_defs_folder_sandbox
from dagster.components.testing.test_cases import (
    TestOpCustomization,
    TestTranslation,
    TestTranslationBatched,
)

from wb_ops.dagster import WandbBackfill, WandbProjectComponent, WandbTableProps

HISTORY = dg.AssetKey(["ann__demo", "history"])


class Tagged(WandbProjectComponent):
    """What a user's own subclass looks like."""

    def get_asset_spec(self, props: WandbTableProps) -> dg.AssetSpec:
        return super().get_asset_spec(props).merge_attributes(tags={"tier": "gold"})


@contextmanager
def loaded(component: type = WandbProjectComponent, **changed: Any) -> Iterator[dg.Definitions]:
    attributes = {
        "entity": "ann", "project": "demo", "warehouse": "duckdb:////data/none.duckdb", **changed
    }  # fmt: skip
    with create_defs_folder_sandbox() as sandbox:
        path = sandbox.scaffold_component(
            component_cls=component,
            defs_yaml_contents={
                "type": f"{component.__module__}.{component.__name__}",
                "attributes": attributes,
            },
            scaffold_params={"entity": "ann", "project": "demo"},
        )
        with sandbox.load_component_and_build_defs(defs_path=path) as (_, defs):
            yield defs


class TestTranslations(TestTranslation):
    def test_translation(self, attributes, assertion, key_modifier):
        with loaded(translation=attributes) as defs:
            key = key_modifier(HISTORY) if key_modifier else HISTORY
            assert assertion(defs.resolve_assets_def(key).get_asset_spec(key))


class TestTranslationsAtOnce(TestTranslationBatched):
    def test_translation(self, attributes, assertion, key_modifier):
        with loaded(translation=attributes) as defs:
            key = key_modifier(HISTORY)
            assert assertion(defs.resolve_assets_def(key).get_asset_spec(key))


class TestOps(TestOpCustomization):
    def test_op(self, attributes, assertion):
        with loaded(op=attributes) as defs:
            op = defs.resolve_assets_def(HISTORY).op
            # The suite asks either of the op or of the asset for each attribute.
            assert assertion(op if hasattr(op, next(iter(attributes))) else _asset(defs))


def _asset(defs: dg.Definitions) -> dg.AssetsDefinition:
    return defs.resolve_assets_def(HISTORY)


def test_what_it_defines_materializes(bench):
    url = f"duckdb:///{bench.folder / 'warehouse.duckdb'}"
    with loaded(
        warehouse=url, base_url=bench.server.url, api_key=bench.key,
        translation={"key": "ml/{{ props.table }}"},
    ) as defs:  # fmt: skip
        job = defs.resolve_implicit_global_asset_job_def()
        result = job.execute_in_process(instance=bench.instance)
    assert result.success
    assert {event.asset_key.path[-1] for event in result.get_asset_materialization_events()} == {
        "runs", "history"
    }  # fmt: skip
    assert len(result.get_asset_check_evaluations()) == 4
    assert bench.rows("select count(*) as runs from runs") == [{"runs": 3}]


def test_backfills_are_assets_after_history_with_all_their_options(bench):
    url = f"duckdb:///{bench.folder / 'warehouse.duckdb'}"
    best = {"name": "best", "recipe": 'best("val_acc")', "policy": "only_missing", "safe": True}
    tags = {
        "name": "good", "target": "tags", "filters": {"name": {"$in": ["r1", "r2"]}},
        "sql": "select run_id, max(val_acc) > 0.45 as good from history group by run_id",
        "max_changes": 2, "op": {"pool": "slow", "tags": {"a": "b"}},
    }  # fmt: skip
    with loaded(
        warehouse=url, base_url=bench.server.url, api_key=bench.key, backfills=[best, tags],
        translation={"key": "ml/{{ props.table }}", "tags": {"kind": "{{ props.kind }}"}},
    ) as defs:  # fmt: skip
        spec = defs.resolve_assets_def(["ml", "best"]).get_asset_spec(dg.AssetKey(["ml", "best"]))
        good = defs.resolve_assets_def(["ml", "good"])
        job = defs.resolve_implicit_global_asset_job_def()
        assert job.execute_in_process(instance=bench.instance).success
    assert {str(one.asset_key.path[-1]) for one in spec.deps} == {"runs", "history"}
    assert spec.tags["kind"] == "backfill"
    assert (good.op.pool, good.op.tags["a"]) == ("slow", "b")
    with bench.resources["wandb"].get_api() as api:
        runs = {run.id: run for run in api.runs("ann/demo")}
    assert {name: run.summary["best_val_acc"] for name, run in runs.items()} == {
        "r0": 0.4, "r1": 0.5, "r2": 0.6
    }  # fmt: skip
    assert [name for name, run in sorted(runs.items()) if "good" in run.tags] == ["r1", "r2"]


def test_backfills_have_the_partitions_and_what_launches_the_tables():
    best = {"name": "best", "recipe": 'best("val_acc")'}
    with loaded(
        partitions="created_day", start_date="2026-03-01", lookback_days=7, has_sensor=True,
        backfills=[best],
    ) as defs:  # fmt: skip
        key = dg.AssetKey(["ann__demo", "best"])
        spec, table = (defs.resolve_assets_def(one).get_asset_spec(one) for one in (key, HISTORY))
        assert spec.partitions_def == table.partitions_def
        assert spec.automation_condition == table.automation_condition
        (sensor,) = defs.sensors
        assert key in sensor.job.selection.resolve(defs.resolve_asset_graph())
        dg.Definitions.validate_loadable(defs)


def test_days_bring_their_source_schedule_and_sensor():
    with loaded(
        partitions="created_day", start_date="2026-03-01", lookback_days=7, has_sensor=True
    ) as defs:
        asset = _asset(defs)
        spec = asset.get_asset_spec(HISTORY)
        (source,) = [dependency.asset_key for dependency in spec.deps]
        assert source == dg.AssetKey(["ann__demo", "changes"])
        assert spec.automation_condition is not None
        (schedule,) = defs.schedules
        assert schedule.default_status is dg.DefaultScheduleStatus.STOPPED
        assert defs.resolve_job_def("observe_ann__demo__changes")
        (sensor,) = defs.sensors
        assert sensor.default_status is dg.DefaultSensorStatus.STOPPED
        dg.Definitions.validate_loadable(defs)


def test_its_states_are_those_of_its_sensor_too(bench):
    moment = datetime.now(UTC)
    for run_id, state in (("broke", "crashed"), ("whole", "finished")):
        bench.server.seed_run("ann", "demo", run_id, state=state, heartbeat_at=moment)
    for run_id in ("r0", "r1", "r2"):
        bench.server.delete_run("ann", "demo", run_id)
    with loaded(
        partitions="run", states=["crashed", "running"], base_url=bench.server.url,
        api_key=bench.key,
    ) as defs:  # fmt: skip
        (sensor,) = defs.sensors
        with dg.build_sensor_context(instance=bench.instance) as context:
            result = sensor(context)
    assert [request.partition_key for request in result.run_requests] == ["broke"]


def test_partitions_by_run_bring_their_sensor():
    with loaded(partitions="run") as defs:
        partitions_def = _asset(defs).get_asset_spec(HISTORY).partitions_def
        assert partitions_def.name == "ann__demo__run_ids"
        assert len(defs.sensors) == 1
        dg.Definitions.validate_loadable(defs)


@pytest.mark.parametrize(
    "attributes",
    [
        {"partitions": "created_day"},
        {"start_date": "2026-03-01"},
        {"lookback_days": 3},
        {"lookback_days": 0, "partitions": "created_day", "start_date": "2026-03-01"},
        {"states": ["running"], "has_sensor": True},
        {"projct": "typo"},
        {"entity": 5},
        {"backfills": [{"name": "none"}]},
        {"backfills": [{"name": "two", "sql": "select 1", "file": "x.csv"}]},
        {"backfills": [{"name": "no_recipe", "recipe": "exec('rm')"}]},
    ],
)
def test_what_does_not_go_together_is_refused_when_it_loads(attributes: dict[str, Any]):
    with pytest.raises(Exception, match="Error while loading") as caught, loaded(**attributes):
        pass
    assert next(iter(attributes)) in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("metric", ["val/acc", 'a "b" \\c', "größe", "acc 🎯"])
def test_a_scaffolded_backfill_reads_the_metric_as_it_was_typed(metric: str):
    params = {"entity": "ann", "project": "demo", "best": metric}
    with create_defs_folder_sandbox() as sandbox:
        path = sandbox.scaffold_component(WandbProjectComponent, scaffold_params=params)
        written = yaml.safe_load((path / "defs.yaml").read_text())
    (backfill,) = written["attributes"]["backfills"]
    assert WandbBackfill(**backfill).compute().reads == (metric,)


@pytest.mark.parametrize(
    ("attributes", "named"),
    [
        ({"op": {"description": "d", "name": "n"}}, "op.description would"),
        (
            {"backfills": [{"name": "one", "sql": "select 1", "op": {"description": "d"}}]},
            "backfills: one: op.description would",
        ),
        (
            {
                "backfills": [
                    {"name": "one", "sql": "select 1", "op": {"name": "n", "description": "d"}}
                ]
            },
            "backfills: one: op.name and op.description would",
        ),
    ],
)
def test_what_an_op_would_not_use_is_refused_by_name(attributes: dict[str, Any], named: str):
    with pytest.raises(Exception, match="Error while loading") as caught, loaded(**attributes):
        pass
    assert named in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("name", ["TEST_UNSET", "TEST_EMPTY"])
@pytest.mark.parametrize(
    ("field", "given"),
    [
        ("warehouse", "{{ env.%s }}"),
        ("warehouse", "duckdb:///{{ env.%s }}/x.duckdb"),
        ("api_key", "{{ env.%s }}"),
        ("base_url", "{{ env('%s') }}"),
        ("filters", {"config.team": "{{ env.%s }}"}),
        ("translation", {"key": "{{ env.%s }}/{{ props.table }}"}),
        ("backfills", [{"name": "best", "file": "{{ env.%s }}/best.csv"}]),
    ],
)
def test_a_variable_that_is_not_set_is_named_where_it_stands(
    field: str, given: Any, name: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("TEST_EMPTY", "")
    with (
        pytest.raises(Exception, match=r"Error while (loading|building)") as caught,
        loaded(**{field: yaml.safe_load(yaml.safe_dump(given).replace("%s", name))}),
    ):
        pass
    said = "".join(traceback.format_exception(caught.value))
    assert re.search(rf"defs\.yaml:\d+ - attributes\.{field}\b", said)
    assert f"The variable {name} is empty: set it where" in said


def test_variables_that_are_set_are_used(bench, monkeypatch: pytest.MonkeyPatch):
    values = {
        "API_KEY": bench.key, "BASE_URL": bench.server.url, "DATASET": "experiments",
        "WAREHOUSE": f"duckdb:///{bench.folder / 'warehouse.duckdb'}",
    }  # fmt: skip
    for name, value in values.items():
        monkeypatch.setenv(f"TEST_{name}", value)
    with loaded(**{name.lower(): f"{{{{ env.TEST_{name} }}}}" for name in values}) as defs:
        job = defs.resolve_implicit_global_asset_job_def()
        assert job.execute_in_process(instance=bench.instance).success
    assert bench.warehouse.query("select * from runs", "experiments").num_rows == 3


class Watched(WandbProjectComponent):
    """A component with a template variable for its YAML."""

    @staticmethod
    @dg.template_var
    def fresh() -> Any:
        return lambda: dg.FreshnessPolicy.time_window(fail_window=timedelta(days=1))


def test_freshness_is_a_template_variable():
    with loaded(Watched, translation={"freshness_policy": "{{ fresh() }}"}) as defs:
        policy = _asset(defs).get_asset_spec(HISTORY).freshness_policy
    assert policy == dg.FreshnessPolicy.time_window(fail_window=timedelta(days=1))


@pytest.mark.parametrize(
    "given",
    ["{{ env('TEST_UNSET', 'ours') }}", "{{ env.TEST_UNSET or 'ours' }}",
     "{{ env.TEST_UNSET | default('ours') }}"],
)  # fmt: skip
@pytest.mark.parametrize("is_empty", [False, True])
def test_a_variable_may_have_a_default(monkeypatch: pytest.MonkeyPatch, given: str, is_empty: bool):
    if is_empty:
        monkeypatch.setenv("TEST_UNSET", "")
    with loaded(project=given) as defs:
        assert defs.resolve_assets_def(["ann__ours", "history"])


def test_a_subclass_changes_specs_in_python():
    with loaded(Tagged) as defs:
        assert _asset(defs).get_asset_spec(HISTORY).tags["tier"] == "gold"


def test_two_of_them_are_in_one_location():
    with loaded() as one, loaded(project="other") as two:
        both = dg.Definitions.merge(one, two)
        assert len(both.resolve_asset_graph().get_all_asset_keys()) == 4


@pytest.mark.parametrize("component", [WandbProjectComponent, WandbBackfill])
def test_every_field_is_documented_in_the_schema_of_the_yaml(component: type):
    fields = component.model().model_json_schema()["properties"]
    assert fields.keys() == component.model_fields.keys()
    assert [name for name, field in fields.items() if not field.get("description")] == []
    names = ("recipe", "sql", "file") if component is WandbBackfill else ("api_key", "tables")
    assert [name for name in names if not fields[name].get("examples")] == []


def test_the_key_is_in_no_repr():
    component = WandbProjectComponent(
        entity="ann", project="demo", warehouse="postgresql://u:pw@h/d", api_key="canary"
    )
    assert "canary" not in repr(component)
    assert "pw" not in repr(component)
