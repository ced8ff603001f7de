"""The command line in this process, in a folder of its own, against three runs."""

from __future__ import annotations

from pathlib import Path

import pytest
from three_runs import Command, seed_three

from wb_ops.cli.failures import run
from wb_ops.cli.main import cli
from wb_ops.devserver import DevServer


@pytest.fixture
def three_runs(server: DevServer) -> None:
    seed_three(server)


@pytest.fixture
def wb_ops(
    server: DevServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Command:
    monkeypatch.setenv("WANDB_BASE_URL", server.url)
    monkeypatch.setenv("WANDB_API_KEY", server.api_key)
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[int, str, str]:
        try:
            code = run(cli, list(arguments))
        except SystemExit as exit_:
            code = int(str(exit_.code))
        return code, *capsys.readouterr()

    return call
