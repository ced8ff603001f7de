"""The page about exports does not lie: its code and its commands run."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any, get_args

import pytest
from click.testing import CliRunner

from wb_ops.cli.main import cli
from wb_ops.devserver import DevServer
from wb_ops.export.receipts import Status
from wb_ops.export.request import TABLE_NAMES, Mode

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "export.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
COMMANDS = re.findall(r"^\$ wb-ops (.*)$", PAGE, flags=re.MULTILINE)


@pytest.fixture(autouse=True)
def my_project(server: DevServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DevServer:
    history = [{"_step": step, "loss": 1 / (step + 1)} for step in range(4)]
    for run_id in ("r1", "r2"):
        server.seed_run("my-team", "my-project", run_id, history=history)
    monkeypatch.setenv("WANDB_API_KEY", server.api_key)
    monkeypatch.setenv("WANDB_BASE_URL", server.url)
    monkeypatch.chdir(tmp_path)
    return server


def test_the_code_runs_from_top_to_bottom(server: DevServer, capsys: pytest.CaptureFixture[str]):
    names: dict[str, Any] = {}
    exec(compile(PYTHON[0], "docs/export.md, block 1", "exec"), names)
    server.seed_run("my-team", "my-project", "r3", history=[{"_step": 0, "loss": 1.0}])
    exec(compile(PYTHON[1], "docs/export.md, block 2", "exec"), names)
    printed = capsys.readouterr().out
    assert "2 to write (2 new)" in printed
    assert "2 runs and 8 history rows written" in printed
    assert "1 runs and 1 history rows written" in printed


def test_the_commands_run():
    for command in COMMANDS:
        done = CliRunner().invoke(cli, shlex.split(command), catch_exceptions=False)
        assert done.exit_code == 0, done.output


def test_every_word_is_there():
    for word in (*get_args(Mode), *get_args(Status), *TABLE_NAMES):
        assert f"`{word}`" in PAGE or word in PYTHON[0], word
