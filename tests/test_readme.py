"""The README does not lie: its code runs, its commands exist, its table is the code's."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from wb_ops import errors
from wb_ops.cli.main import cli
from wb_ops.devserver import DevServer

README = (Path(__file__).resolve().parents[1] / "README.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
COMMANDS = re.findall(r"^\$ (wb-ops .*?)(?:   #.*)?$", README, flags=re.MULTILINE)


@pytest.fixture
def my_project(server: DevServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DevServer:
    history = [{"_step": step, "loss": 1 / (step + 1)} for step in range(3)]
    server.seed_run("my-team", "my-project", "r1", history=history)
    monkeypatch.setenv("WANDB_API_KEY", server.api_key)
    monkeypatch.setenv("WANDB_BASE_URL", server.url)
    monkeypatch.chdir(tmp_path)
    return server


def test_the_library_examples_run(my_project: DevServer, capsys: pytest.CaptureFixture[str]):
    for code in PYTHON[:3]:
        exec(compile(code, "README.md", "exec"), {})
    printed = capsys.readouterr().out
    assert "1 to write (1 new)" in printed
    assert "0.333" in printed
    assert "1 written" in printed
    assert "r1 3" in printed


def test_the_dagster_example_loads():
    names: dict[str, Any] = {}
    exec(compile(PYTHON[3], "README.md", "exec"), names)
    names["defs"].resolve_all_job_defs()


def test_the_airflow_example_is_valid_python():
    """Airflow's own tests run the operator; parsing its Dag here would start Airflow's settings."""
    compile(PYTHON[4], "README.md", "exec")


def test_the_commands_run_in_their_order(my_project: DevServer):
    for command in COMMANDS:
        _, *arguments = shlex.split(command)
        if "devserver" not in arguments:
            done = CliRunner().invoke(cli, arguments, catch_exceptions=False)
            assert done.exit_code == 0, (command, done.output)


def test_every_command_is_in_the_readme():
    shown = {shlex.split(command)[1] for command in COMMANDS}
    assert isinstance(cli, click.Group)
    assert set(cli.commands) <= shown


def test_the_error_table_is_the_codes():
    rows = re.findall(r"^\| `(\w+)` \| .*? \| (\w+).*? \|", README, flags=re.MULTILINE)
    kinds = {name: kind.lower() for name, kind in rows if name != "ExportIncomplete"}
    for name, kind in kinds.items():
        assert getattr(errors, name)("x", retry_after_s=1.0).advice.kind == kind
    tree = set(re.findall(r"── (\w+) +(?:AFTER|BACKOFF|VERIFY|NEVER|the mildest)", errors.__doc__))
    assert {name for name, _ in rows} == tree


def test_nothing_is_left_to_be_filled_in():
    assert re.findall(r"@[A-Z]+@|TODO|FIXME", README) == []
