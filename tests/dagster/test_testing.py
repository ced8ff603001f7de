"""What users import for their own tests does what it says."""

from __future__ import annotations

import dagster as dg
import pytest

from wb_ops.dagster import build_wandb_assets
from wb_ops.dagster.testing import assert_maps_to, dev_resources
from wb_ops.errors import AuthenticationFailed, RateLimited, ServerUnavailable


def test_assets_materialize_against_the_fixture(wandb_server, tmp_path):
    wandb_server.seed_run("acme", "gpt", "r1", history=[{"_step": 0, "loss": 1.0}])
    resources = dev_resources(wandb_server, tmp_path)
    assets = build_wandb_assets(entity="acme", project="gpt", retry_policy=None)
    assert dg.materialize([assets], resources=resources).success
    rows = resources["warehouse"].get_warehouse().query("select * from history", "acme__gpt")
    assert rows.num_rows == 1


def test_errors_are_compared_with_the_table():
    waits = assert_maps_to(RateLimited("slow", retry_after_s=42), "waits", seconds=42)
    assert isinstance(waits, dg.RetryRequested)
    assert_maps_to(ServerUnavailable("502"), "policy")
    assert_maps_to(AuthenticationFailed("401"), "fails")


@pytest.mark.parametrize(
    ("error", "outcome", "seconds"),
    [
        (ServerUnavailable("502"), "fails", None),
        (KeyError("a bug"), "fails", None),
        (RateLimited("slow", retry_after_s=4), "waits", 60),
    ],
)
def test_what_differs_is_an_assertion_error(error, outcome, seconds):
    with pytest.raises(AssertionError):
        assert_maps_to(error, outcome, seconds=seconds)
