"""The command line: what a shell, a log and a program see of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from wb_ops import connect
from wb_ops.devserver import DevServer, Fault, Matcher, Responder

Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def wb_ops(server: DevServer, tmp_path: Path) -> Command:
    """Runs the installed command in a folder of its own."""
    command = Path(sys.executable).with_name("wb-ops")
    environ = {**os.environ, "WANDB_BASE_URL": server.url, "WANDB_API_KEY": server.api_key}

    def run(*arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [command, *arguments], env={**environ, **changes}, cwd=tmp_path,
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    return run


@pytest.fixture
def project(server: DevServer) -> DevServer:
    for index in range(3):
        history = [{"_step": step, "loss": 1.0} for step in range(5)]
        server.seed_run("ann", "trials", f"r{index}", history=history)
    return server


@pytest.mark.usefixtures("project")
class TestExport:
    def test_it_writes_and_says_so(self, wb_ops: Command, tmp_path: Path):
        done = wb_ops("export", "ann/trials", "--to", "duckdb:///w.duckdb")
        assert done.returncode == 0, done.stderr
        assert "3 runs and 15 history rows written" in done.stdout
        assert "receipts: 3 complete" in done.stdout
        warehouse = connect(f"duckdb:///{tmp_path / 'w.duckdb'}")
        assert (
            warehouse.query("select count(*) as n from history", "ann__trials")["n"][0].as_py()
            == 15
        )
        again = wb_ops("export", "ann/trials", "--to", "duckdb:///w.duckdb")
        assert "3 runs listed, 3 unchanged" in again.stdout

    def test_a_dry_run_writes_nothing(self, wb_ops: Command, tmp_path: Path):
        done = wb_ops("export", "ann/trials", "--to", "duckdb:///w.duckdb", "--dry-run")
        assert done.returncode == 0
        assert "3 to write (3 new), 3 histories with 15 rows" in done.stdout
        assert list(tmp_path.glob("*.duckdb")) == []

    def test_json_is_one_object_a_line(self, wb_ops: Command):
        done = wb_ops("export", "ann/trials", "--to", "duckdb:///w.duckdb", "--json")
        plan, report = (json.loads(line) for line in done.stdout.splitlines())
        assert plan["plan"]["history_rows"] == 15
        assert report["report"]["statuses"] == {"complete": 3}
        assert len(report["report"]["receipts"]) == 3

    @pytest.mark.parametrize(
        ("arguments", "environ", "code", "words"),
        [
            (["ann/nothing"], {}, 64, "No such project: ann/nothing"),
            (["a/b/c"], {}, 64, "entity/project"),
            (["ann/trials", "--keys", " , "], {}, 64, "names nothing"),
            (["ann/trials"], {"WANDB_HTTP_TIMEOUT": "30s"}, 64, "WANDB_HTTP_TIMEOUT='30s'"),
            (["ann/trials", "--filters", "{"], {}, 64, "is not JSON"),
            (["ann/trials", "--since", "monday"], {}, 64, "--since 'monday'"),
            (["ann/trials"], {"WANDB_API_KEY": "w" * 40}, 77, "401"),
            (["ann/trials"], {"WANDB_API_KEY": "short"}, 77, "5 characters"),
            (["ann/trials", "--to", "oracle://x"], {}, 64, "--to: No warehouse for oracle"),
            (["ann/trials", "--to", "w.duckdb"], {}, 64, "--to: No warehouse for a URL without"),
            (["ann/trials", "--to", ""], {}, 64, "use duckdb:///FILE"),
            (["ann/trials", "--to", "duckdb:///w.duckdb?x=1"], {}, 64, "unknown option 'x'"),
            (["ann/trials", "--states", "finshed"], {}, 64, "W&B has crashed, failed, finished"),
        ],
    )
    def test_what_is_wrong_is_said_and_has_its_code(
        self, wb_ops: Command, arguments: list[str], environ: dict[str, str], code: int, words: str
    ):
        done = wb_ops("export", "--to", "duckdb:///w.duckdb", *arguments, **environ)
        assert (done.returncode, "Try again: no" in done.stderr) == (code, True)
        assert words in done.stderr
        assert "Traceback" not in done.stderr

    def test_wrong_usage_has_the_code_for_it(self, wb_ops: Command):
        for arguments in (["export"], ["export", "ann/trials", "--mode", "x"], ["nothing"]):
            assert wb_ops(*arguments).returncode == 64

    def test_spaces_between_keys_lose_none(self, wb_ops: Command, tmp_path: Path):
        done = wb_ops("export", "ann/trials", "--to", "duckdb:///w.duckdb", "--keys", "x, loss")
        assert done.returncode == 0, done.stderr
        warehouse = connect(f"duckdb:///{tmp_path / 'w.duckdb'}")
        rows = warehouse.query("select count(loss) as n from history", "ann__trials")
        assert rows["n"][0].as_py() == 15

    def test_a_limit_says_when_to_try_again(self, wb_ops: Command, server: DevServer):
        server.faults.add(Fault(Matcher(operation="Runs"), Responder.rate_limited(600)))
        done = wb_ops("export", "ann/trials", "--to", "duckdb:///w.duckdb")
        assert done.returncode == 75
        assert "Try again: after 600 s" in done.stderr


def test_the_server_of_the_command_line(tmp_path: Path):
    command = [Path(sys.executable).with_name("wb-ops"), "devserver"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path)
    try:
        assert server.stdout is not None
        addresses: dict[str, Any] = json.loads(server.stdout.readline())
        assert addresses["url"].startswith("http://127.0.0.1:")
    finally:
        server.terminate()
        assert server.wait(30) == 0
