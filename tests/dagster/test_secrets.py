"""The API key is in nothing that Dagster keeps or shows."""

from __future__ import annotations

import dagster as dg
import pytest

from wb_ops.dagster import build_wandb_assets
from wb_ops.devserver import Responder


@pytest.fixture
def kept(bench, tmp_path, monkeypatch: pytest.MonkeyPatch, capfd, caplog):
    """Runs assets on an instance on disk; returns all that is kept, shown and printed of it."""
    monkeypatch.setenv("WANDB_API_KEY", bench.key)

    def run(api_key: str | None, *assets: dg.AssetsDefinition) -> str:
        with dg.instance_for_test(temp_dir=str(tmp_path)) as instance:
            bench.instance = instance
            bench.wandb = {"api_key": api_key}
            ran = bench.run(*assets)
            stored = instance.get_run_by_id(ran.result.run_id)
            texts = [
                repr(stored),
                repr(instance.get_job_snapshot(stored.job_snapshot_id)),
                repr(instance.all_logs(ran.result.run_id)),
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
