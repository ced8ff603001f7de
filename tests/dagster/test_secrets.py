"""The API key and the warehouse's password are in nothing that Dagster keeps or shows."""

# No postponed annotations here: Dagster reads those of resources as they stand.

import os
import traceback
from collections.abc import Callable
from datetime import UTC, datetime

import dagster as dg
import pytest
from dagster._core.remote_representation.external_data import RepositorySnap
from dagster.components.testing import create_defs_folder_sandbox

from wb_ops.dagster import (
    WandbBackfill,
    WandbProjectComponent,
    WandbResource,
    WarehouseResource,
    build_wandb_assets,
)
from wb_ops.devserver import Responder

# Nowhere else, so that a search for it finds every leak.
KEY = "canary" * 8
PASSWORD = "parakeet" * 4


@pytest.fixture
def keep(tmp_path, capfd, caplog):
    """Does work on an instance on disk; returns all that is kept, shown and printed of it."""

    def keep(work: Callable[[dg.DagsterInstance], list[str]]) -> str:
        with dg.instance_for_test(temp_dir=str(tmp_path)) as instance:
            texts = work(instance)
            for stored in instance.get_runs():
                texts += [
                    repr(stored),
                    repr(instance.get_job_snapshot(stored.job_snapshot_id)),
                    repr(instance.all_logs(stored.run_id)),
                    repr(instance.get_execution_plan_snapshot(stored.execution_plan_snapshot_id)),
                ]
            texts += [*capfd.readouterr(), caplog.text]
        files = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
        return "\n".join([*texts, *(content.decode("latin-1") for content in files)])

    return keep


@pytest.fixture
def kept(bench, keep, monkeypatch: pytest.MonkeyPatch):
    """Materializes assets; returns all that is kept of it."""
    monkeypatch.setenv("WANDB_API_KEY", bench.key)

    def run(api_key: str | None, *assets: dg.AssetsDefinition, warehouse: str | None = None) -> str:
        def work(instance: dg.DagsterInstance) -> list[str]:
            bench.instance = instance
            bench.wandb = {"api_key": api_key}
            bench.url = warehouse
            bench.run(*assets)
            return [repr(bench.resources)]

        return keep(work)

    return run


@pytest.mark.parametrize(
    "api_key", [None, dg.EnvVar("WANDB_API_KEY"), KEY], ids=["found", "EnvVar", "literal"]
)
@pytest.mark.parametrize("respond", [None, Responder.error(502), Responder.error(403)])
def test_the_key_is_nowhere(bench, kept, api_key, respond):
    if respond is not None:
        bench.fail(respond, times=None)
    text = kept(api_key)
    assert "ann__demo" in text
    assert bench.key not in text


def test_an_error_that_quotes_the_key_is_masked(bench, kept):
    bench.fail(Responder.error(400, f"bad credential {bench.key}"), times=None)
    text = kept(None)
    assert "bad credential ***" in text
    assert bench.key not in text


def test_a_literal_key_of_resources_bound_to_the_assets_is_nowhere(bench, kept):
    assets = build_wandb_assets(entity="ann", project="demo", **bench.resources)
    text = kept(None, assets)
    assert "ann__demo" in text
    assert bench.key not in text


def test_the_search_would_find_a_key_that_a_launchpad_is_given(bench, keep):
    def work(instance: dg.DagsterInstance) -> list[str]:
        bench.instance = instance
        access = {"base_url": bench.server.url, "api_key": bench.key}
        assert bench.run(run_config={"resources": {"wandb": {"config": access}}}).success
        return []

    assert bench.key in keep(work)


@pytest.fixture
def postgres(postgres_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a variable with a PostgreSQL URL whose user has a password."""
    url = postgres_server.replace("postgres:@", f"postgres:{PASSWORD}@")
    assert PASSWORD in url
    monkeypatch.setenv("TEST_WAREHOUSE", url)
    return "TEST_WAREHOUSE"


@pytest.mark.parametrize("respond", [None, Responder.error(403)], ids=["works", "fails"])
def test_the_password_of_a_warehouse_is_nowhere(bench, kept, postgres: str, respond):
    if respond is not None:
        bench.fail(respond, times=None)
    text = kept(None, warehouse=dg.EnvVar(postgres))
    assert "ann__demo" in text
    assert ("postgresql://postgres@" in text) is (respond is None)
    assert PASSWORD not in text


def test_the_password_of_a_warehouse_that_lets_nobody_in_is_nowhere(bench, kept, monkeypatch):
    monkeypatch.setenv("TEST_WAREHOUSE", f"postgresql://ann:{PASSWORD}@127.0.0.1:1/db")
    text = kept(None, warehouse=dg.EnvVar("TEST_WAREHOUSE"))
    assert "WarehouseUnavailable" in text
    assert PASSWORD not in text


def test_the_password_of_a_warehouse_bound_to_the_assets_is_nowhere(bench, kept, postgres: str):
    bench.url = dg.EnvVar(postgres)
    assets = build_wandb_assets(entity="ann", project="demo", **bench.resources)
    text = kept(None, assets)
    assert "postgresql://postgres@" in text
    assert PASSWORD not in text


def test_literals_of_a_component_are_nowhere(bench, keep, postgres: str):
    today = datetime.now(UTC)
    bench.server.seed_run("ann", "demo", "now", created_at=today, history=[{"val_acc": 0.5}])
    component = WandbProjectComponent(
        entity="ann", project="demo", base_url=bench.server.url, api_key=bench.key,
        warehouse=os.environ[postgres], partitions="created_day", start_date=f"{today:%Y-%m-%d}",
        lookback_days=1, has_sensor=True,
        backfills=[WandbBackfill(name="best", recipe='best("val_acc")')],
    )  # fmt: skip
    defs = dg.build_defs_for_component(component)

    def work(instance: dg.DagsterInstance) -> list[str]:
        (schedule,), (sensor,) = defs.schedules, defs.sensors
        observed = defs.resolve_job_def(schedule.job_name).execute_in_process(instance=instance)
        tables = [one for one in defs.assets if isinstance(one, dg.AssetsDefinition)]
        ran = dg.materialize(tables, instance=instance, partition_key=f"{today:%Y-%m-%d}")
        assert observed.success
        assert ran.success
        with dg.build_sensor_context(instance=instance) as context:
            ticked = sensor(context)
        return [repr(ticked), repr(component), snapshot_of(defs)]

    text = keep(work)
    for made in ("best_val_acc", "changes", "finished_runs", "postgresql://postgres@"):
        assert made in text
    assert bench.key not in text
    assert PASSWORD not in text


@pytest.mark.parametrize("api_key", [KEY, "{{ env.TEST_KEY }}"], ids=["literal", "variable"])
def test_the_key_of_yaml_is_in_no_snapshot(api_key: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TEST_KEY", KEY)
    access = {"warehouse": "duckdb:///x.duckdb", "api_key": api_key}
    attributes = {"entity": "ann", "project": "demo", **access, "has_sensor": True}
    with create_defs_folder_sandbox() as sandbox:
        sandbox.scaffold_component(
            component_cls=WandbProjectComponent,
            defs_yaml_contents={
                "type": "wb_ops.dagster.WandbProjectComponent", "attributes": attributes
            },
            scaffold_params={"entity": "ann", "project": "demo"},
        )  # fmt: skip
        with sandbox.build_all_defs() as defs:
            snapshot = snapshot_of(defs)
    assert "WandbProjectComponent" in snapshot
    assert KEY not in snapshot


def snapshot_of(defs: dg.Definitions) -> str:
    """What a code location tells the web server of itself."""
    return dg.serialize_value(RepositorySnap.from_def(defs.get_repository_def()))


class Team(WandbResource):
    """A resource of a user's own, with one of Dagster's kind in it."""

    store: WarehouseResource


class Report(dg.ConfigurableResource):
    """Holds the access to W&B as one of its values."""

    wandb: WandbResource


class Careless(dg.ConfigurableResource):
    """What Dagster makes of any other literal."""

    api_key: str


def test_a_literal_key_is_in_no_snapshot_and_works(bench, monkeypatch):
    monkeypatch.setenv("TEST_URL", bench.server.url)
    access = {"base_url": dg.EnvVar("TEST_URL"), "api_key": KEY, "max_attempts": 2}
    store = WarehouseResource(url="duckdb:///x.duckdb")
    resources = {
        "wandb": WandbResource(**access),
        "team": Team(**access, store=store),
        "report": Report(wandb=WandbResource(**access)),
    }
    seen = []

    @dg.asset
    def keys(wandb: WandbResource, team: Team, report: Report) -> None:
        seen.extend((one.api_key, one.base_url) for one in (wandb, team, report.wandb))
        assert team.store.url == "duckdb:///x.duckdb"

    snapshot = snapshot_of(dg.Definitions(assets=[keys], resources=resources))
    assert "TEST_URL" in snapshot
    assert KEY not in snapshot + repr(resources)
    assert dg.materialize([keys], resources=resources, instance=bench.instance).success
    assert seen == [(KEY, bench.server.url)] * 3


def test_a_literal_key_goes_to_no_server_that_a_launchpad_names(bench):
    seen = []

    @dg.asset
    def access(wandb: WandbResource) -> None:
        seen.append((wandb.base_url, wandb.api_key))

    def launch(**config: str) -> None:
        dg.materialize([access], resources=bench.resources, instance=bench.instance,
                       run_config={"resources": {"wandb": {"config": config}}})  # fmt: skip

    launch(base_url=bench.server.url)
    launch(base_url="https://other.example")
    launch(entity="ann")
    assert seen == [(bench.server.url, KEY), ("https://other.example", None), (None, None)]


def test_a_literal_beside_a_launchpad_is_refused_unseen():
    with pytest.raises(dg.DagsterInvalidDefinitionError, match="EnvVar") as caught:
        WandbResource.configure_at_launch(api_key=KEY)
    with pytest.raises(dg.DagsterInvalidDefinitionError, match="EnvVar") as refused:
        WarehouseResource.configure_at_launch(url=f"postgresql://ann:{PASSWORD}@host/db")
    assert KEY not in str(caught.value)
    assert PASSWORD not in str(refused.value)
    left = WandbResource.configure_at_launch(api_key=dg.EnvVar("WANDB_API_KEY"))
    dg.Definitions.validate_loadable(dg.Definitions(resources={"wandb": left}))


class Keyed(WandbResource):
    """A resource of a user's own that asks for a key."""

    api_key: str


def test_a_literal_that_a_subclass_cannot_keep_out_is_refused_unseen():
    store = WarehouseResource.configure_at_launch()
    for resource in (Keyed(api_key=KEY), Team(api_key=KEY, store=store)):
        defs = dg.Definitions(resources={"wandb": resource, "store": store})
        with pytest.raises(dg.DagsterInvalidDefinitionError, match=r"dg\.EnvVar") as caught:
            dg.Definitions.validate_loadable(defs)
        assert type(resource).__name__ in str(caught.value)
        assert KEY not in "".join(traceback.format_exception(caught.value))
    named = {"keyed": Keyed(api_key=dg.EnvVar("K")), "store": store}
    named["team"] = Team(api_key=dg.EnvVar("K"), store=store)
    dg.Definitions.validate_loadable(dg.Definitions(resources=named))


def test_the_search_would_find_a_literal_in_the_snapshot_of_a_location():
    assert KEY in snapshot_of(dg.Definitions(resources={"careless": Careless(api_key=KEY)}))


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://ann:{PASSWORD}@host/db",
        f"postgresql://ann@host/db?password={PASSWORD}",
        f"postgresql://ann@host/db?sslpassword={PASSWORD}",
        f"postgresql://ann:{PASSWORD}?@host/db",
        f"parquet+s3://name:{PASSWORD}@bucket/folder",
    ],
)
def test_a_location_with_a_literal_password_is_refused_unseen(bench, url: str):
    resources = {**bench.resources, "warehouse": WarehouseResource(url=url)}
    with pytest.raises(dg.DagsterInvalidDefinitionError, match="EnvVar") as caught:
        dg.Definitions.validate_loadable(dg.Definitions(assets=[bench.export], resources=resources))
    assert PASSWORD not in "".join(traceback.format_exception(caught.value))
    assert PASSWORD not in repr(resources)


@pytest.mark.parametrize(
    "url",
    ["duckdb:////data/a@b.duckdb", "duckdb:////data/a:b@c.duckdb", "postgresql://ann@host:5432/db?sslmode=require",
     "parquet+s3://bucket/folder"],
)  # fmt: skip
def test_other_literal_urls_are_taken(bench, url: str):
    resources = {**bench.resources, "warehouse": WarehouseResource(url=url)}
    dg.Definitions.validate_loadable(dg.Definitions(assets=[bench.export], resources=resources))
