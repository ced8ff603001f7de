"""The page about backfills does not lie: its code and its commands run."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any, get_args

import pytest
from click.testing import CliRunner

from wb_ops import Api, ExportRequest, connect, execute_export, plan_export
from wb_ops.backfill.recipes import RECIPES
from wb_ops.backfill.request import Policy
from wb_ops.backfill.targets import Target
from wb_ops.cli.main import cli
from wb_ops.devserver import DevServer

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "backfill.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
COMMANDS = re.findall(r"^\$ wb-ops (.*)$", PAGE, flags=re.MULTILINE)


@pytest.fixture(autouse=True)
def my_project(server: DevServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DevServer:
    history = [{"_step": step, "val_acc": step / 3, "loss": 1 / (step + 1)} for step in range(4)]
    for run_id in ("r1", "r2"):
        server.seed_run("my-team", "my-project", run_id, history=history, summary="{}")
    monkeypatch.setenv("WANDB_API_KEY", server.api_key)
    monkeypatch.setenv("WANDB_BASE_URL", server.url)
    monkeypatch.chdir(tmp_path)
    with Api() as api:
        warehouse = connect("duckdb:///wandb.duckdb")
        export = ExportRequest("my-team", "my-project")
        execute_export(plan_export(export, api, warehouse), api, warehouse)
    return server


def test_the_code_runs_from_top_to_bottom(capsys: pytest.CaptureFixture[str], api: Any):
    names: dict[str, Any] = {}
    for number, code in enumerate(PYTHON):
        exec(compile(code, f"docs/backfill.md, block {number + 1}", "exec"), names)
        if number == 3:
            assert api.run("my-team/my-project/r1").tags == ["good"]
    printed = capsys.readouterr().out
    assert "r1  best_val_acc: (none) -> 1.0" in printed
    assert "6 written; 2 runs changed" in printed
    summary = dict(api.run("my-team/my-project/r1").summary)
    assert summary == {"lines": 4}, "what came before the last block is taken back"


def test_the_commands_run():
    assert len(COMMANDS) == 5
    for command in COMMANDS:
        done = CliRunner().invoke(cli, shlex.split(command), catch_exceptions=False)
        assert done.exit_code == 0, done.output


def test_it_names_every_recipe_policy_and_target():
    for name in (*RECIPES, *get_args(Policy), *get_args(Target)):
        assert re.search(rf"[`\"]{name}[`\"(]", PAGE), name
