"""The API key and the warehouse's password are in nothing that Dagster keeps or shows."""

from __future__ import annotations

import traceback

import dagster as dg
import pytest

from wb_ops.dagster import WarehouseResource, build_wandb_assets
from wb_ops.devserver import Responder


@pytest.fixture
def kept(bench, tmp_path, monkeypatch: pytest.MonkeyPatch, capfd, caplog):
    """Runs assets on an instance on disk; returns all that is kept, shown and printed of it."""
    monkeypatch.setenv("WANDB_API_KEY", bench.key)

    def run(api_key: str | None, *assets: dg.AssetsDefinition, warehouse: str | None = None) -> str:
        with dg.instance_for_test(temp_dir=str(tmp_path)) as instance:
            bench.instance = instance
            bench.wandb = {"api_key": api_key}
            bench.url = warehouse
            ran = bench.run(*assets)
            stored = instance.get_run_by_id(ran.result.run_id)
            texts = [
                repr(stored),
                repr(instance.get_job_snapshot(stored.job_snapshot_id)),
                repr(instance.all_logs(ran.result.run_id)),
                repr(instance.get_execution_plan_snapshot(stored.execution_plan_snapshot_id)),
                repr(bench.resources),
                *capfd.readouterr(),
                caplog.text,
            ]
        files = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
        return "\n".join([*texts, *(content.decode("latin-1") for content in files)])

    return run


@pytest.mark.parametrize("api_key", [None, dg.EnvVar("WANDB_API_KEY")], ids=["found", "EnvVar"])
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


def test_the_search_would_find_a_literal_key(bench, kept):
    assert bench.key in kept(bench.key)


# Nowhere else, so that a search for it finds every leak.
PASSWORD = "parakeet" * 4


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
    ["duckdb:////data/a@b.duckdb", "postgresql://ann@host:5432/db?sslmode=require",
     "parquet+s3://bucket/folder"],
)  # fmt: skip
def test_other_literal_urls_are_taken(bench, url: str):
    resources = {**bench.resources, "warehouse": WarehouseResource(url=url)}
    dg.Definitions.validate_loadable(dg.Definitions(assets=[bench.export], resources=resources))
