"""The examples of the page load, without a request."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster.components.testing import create_defs_folder_sandbox

from wb_ops.dagster import WandbProjectComponent

PAGE = (Path(__file__).parents[2] / "docs" / "dagster.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def test_the_python_examples_load_one_after_the_other():
    names: dict[str, object] = {}
    for block in blocks("python"):
        exec(compile(block, "docs/dagster.md", "exec"), names)
        dg.Definitions.validate_loadable(names["defs"])
    dg.Definitions.validate_loadable(
        dg.Definitions(assets=[names["cifar"], names["fresh"]], resources=names["resources"])
    )
    assert {"defs", "estimate", "changes"} <= set(names)


def test_the_users_tests_of_the_page_pass(wandb_server, tmp_path):
    names: dict[str, object] = {}
    for block in blocks("python"):
        exec(compile(block, "docs/dagster.md", "exec"), names)
        # The blocks after it give the assets partitions.
        if "test_my_assets" in names:
            break
    names["test_my_assets"](wandb_server, tmp_path)
    names["test_my_waits"]()


def test_the_estimate_of_the_page_tells_the_cost_and_makes_no_table(
    wandb_server, tmp_path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("WANDB_BASE_URL", wandb_server.url)
    monkeypatch.setenv("WANDB_API_KEY", wandb_server.api_key)
    for number, month in enumerate((1, 1, 2)):
        wandb_server.seed_run(
            "acme", "nano-gpt", f"r{number}", created_at=datetime(2026, month, 15, tzinfo=UTC),
            history=[{"_step": step, "loss": 1.0} for step in range(7)],
        )  # fmt: skip
    (block,) = [one for one in blocks("python") if "def estimate" in one]
    names: dict[str, Any] = {}
    exec(block.replace("/data/wb.duckdb", str(tmp_path / "wb.duckdb")), names)
    said = names["estimate"](datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC))
    assert "2 runs listed" in said
    assert "2 histories with 14 rows" in said
    assert re.search(r"\d+ requests", said)
    assert list(tmp_path.iterdir()) == []


def test_the_instance_of_the_page_is_that_of_the_example():
    (text,) = blocks("yaml dagster.yaml")
    example = Path(__file__).parents[2] / "dagster_defs" / "dagster.yaml"
    assert yaml.safe_load(text) == yaml.safe_load(example.read_text())


def test_the_yaml_example_loads(monkeypatch):
    monkeypatch.setenv("WB_OPS_WAREHOUSE", "duckdb:////data/none.duckdb")
    (text,) = blocks("yaml")
    with create_defs_folder_sandbox() as sandbox:
        path = sandbox.scaffold_component(
            component_cls=WandbProjectComponent,
            defs_yaml_contents=yaml.safe_load(text),
            scaffold_params={"entity": "acme", "project": "nano-gpt"},
        )
        with sandbox.load_component_and_build_defs(defs_path=path) as (_, defs):
            dg.Definitions.validate_loadable(defs)
            keys = {key.to_user_string() for key in defs.resolve_asset_graph().get_all_asset_keys()}
    assert keys == {"ml/runs", "ml/history", "ml/best_val_acc", "acme__nano_gpt/changes"}
