"""`wb-ops export` onto a disk without room: one message, its exit code, and nothing torn."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from wb_ops import connect
from wb_ops.cli.failures import run
from wb_ops.cli.main import cli
from wb_ops.devserver import DevServer

RUNS, ROWS = 8, 500
EX_CANTCREAT = 73
Export = Callable[[str], tuple[int, list[str]]]
FullDisk = Callable[[int], AbstractContextManager[None]]


@pytest.fixture(autouse=True)
def project(server: DevServer) -> None:
    drawn = random.Random(0)  # numbers that no file format makes smaller
    for number in range(RUNS):
        run_id = f"r{number}"
        history = [
            {"_step": step, **{f"m{key}": drawn.random() for key in range(6)}}
            for step in range(ROWS)
        ]
        server.seed_run("ann", "trials", run_id, history=history)
        # The server writes its files before its disk is full too.
        server.export_run("ann", "trials", run_id)


@pytest.fixture
def export(
    server: DevServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Export:
    """The exit code, and the lines on stderr."""
    monkeypatch.setenv("WANDB_BASE_URL", server.url)
    monkeypatch.setenv("WANDB_API_KEY", server.api_key)

    def call(url: str) -> tuple[int, list[str]]:
        try:
            code = run(cli, ["export", "ann/trials", "--to", url])
        except SystemExit as exit_:
            code = int(str(exit_.code))
        return code, capsys.readouterr().err.splitlines()

    return call


def held(url: str) -> list[tuple[str, int]]:
    """Run ids and rows of what the warehouse has of the project."""
    histories = connect(url).read_tables("ann__trials", ["runs", "history"])
    runs = histories["runs"]["run_id"].to_pylist()
    rows = histories["history"]["run_id"].to_pylist()
    assert set(rows) <= set(runs)
    return [(run_id, rows.count(run_id)) for run_id in sorted(runs)]


@pytest.mark.parametrize("kind", ["duckdb", "parquet", "delta"])
def test_a_commit_that_the_disk_refuses(
    export: Export, full_disk: FullDisk, tmp_path: Path, kind: str
):
    """What is read on the way is small; the warehouse's own files are not."""
    url = f"{kind}:///{tmp_path / 'warehouse'}"
    with full_disk(100_000):
        code, lines = export(url)
    assert code == EX_CANTCREAT
    message, advice = lines[-2:]
    assert message.startswith("WarehouseRefused: ")
    assert "File too large" in message
    assert "make room, then try again" in message
    assert advice == "Try again: no, it would fail again"
    if kind != "delta":  # its library tells on stderr, before us, that a thread of its own ended
        assert len(lines) == 2
    assert held(url) == []
    assert export(url)[0] == 0
    assert held(url) == [(f"r{number}", ROWS) for number in range(RUNS)]


def test_no_room_for_what_is_read_on_the_way(export: Export, full_disk: FullDisk, tmp_path: Path):
    url = f"duckdb:///{tmp_path / 'warehouse.duckdb'}"
    with full_disk(8_000):
        code, lines = export(url)
    assert (code, len(lines)) == (EX_CANTCREAT, 2)
    assert "make room, or choose another folder (TMPDIR" in lines[0]
    assert not list(tmp_path.iterdir())


def test_no_folder_for_temporary_files(
    export: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Python finds none where not one byte can be written."""
    (tmp_path / "full").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    code, lines = export(f"duckdb:///{tmp_path / 'full' / 'warehouse.duckdb'}")
    assert (code, len(lines)) == (EX_CANTCREAT, 2)
    assert "TMPDIR" in lines[0]
    assert not list((tmp_path / "full").iterdir())
