"""The exported files of a history, copied as they are: all of them, or none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from wb_ops import Api, CommError, IncompleteHistory, MalformedResponse, ServerUnavailable
from wb_ops.devserver import DevServer, Fault, Matcher, Responder

ROWS = [{"_step": step, "loss": step / 7} for step in range(25)]
STORAGE = Matcher(origin="storage")

READING = """
import os
found = wandb.Api().run("ann/trials/r1").download_history_exports("copies")
result["live"], result["errors"] = found.contains_live_data, found.errors
result["files"] = {path.name: path.read_bytes().hex() for path in found.paths}
"""


@pytest.fixture
def server() -> Iterator[DevServer]:
    with DevServer(parquet_rows_per_file=10) as server:
        server.seed_run("ann", "trials", "r1", history=ROWS)
        server.seed_run("ann", "trials", "half", history=ROWS, parquet=10)
        server.seed_run("ann", "trials", "none")
        yield server


@pytest.fixture
def once(server: DevServer) -> Iterator[Api]:
    with Api({"base_url": server.url}, api_key=server.api_key) as api:
        yield api


def test_the_files_are_those_of_the_sdk(
    server: DevServer, once: Api, tmp_path: Path, run_sdk: Callable[[DevServer, str], Any]
):
    """By name and content; which file has which number is up to the server's order."""
    theirs = run_sdk(server, READING)
    for _ in range(2):
        mine = once.run("ann/trials/r1").download_history_exports(tmp_path / "new")
        assert {path.name for path in mine.paths} == theirs["files"].keys()
        contents = sorted(path.read_bytes().hex() for path in mine.paths)
        assert contents == sorted(theirs["files"].values())
        assert (mine.contains_live_data, mine.errors) == (theirs["live"], theirs["errors"])
    assert pa.concat_tables(map(pq.read_table, mine.paths)).num_rows == len(ROWS)
    assert sorted(mine.paths) == sorted((tmp_path / "new").iterdir())


def test_rows_that_are_not_exported_yet_are_told(once: Api, tmp_path: Path):
    run = once.run("ann/trials/half")
    with pytest.raises(IncompleteHistory, match="require_complete_history=False"):
        run.download_history_exports(tmp_path)
    found = run.download_history_exports(tmp_path, require_complete_history=False)
    assert found.contains_live_data
    assert pq.read_table(found.paths[0]).num_rows == 10


def test_a_run_that_logged_nothing_has_no_file(once: Api, tmp_path: Path):
    found = once.run("ann/trials/none").download_history_exports(tmp_path / "new")
    assert (found.paths, found.contains_live_data) == ([], False)


def test_an_expired_url_is_asked_for_again(server: DevServer, once: Api, tmp_path: Path):
    server.faults.add(Fault(Matcher(origin="storage", nth=2), Responder.error(403)))
    assert len(once.run("ann/trials/r1").download_history_exports(tmp_path).paths) == 3
    assert server.requests.operations().count("RunParquetHistory") == 2


@pytest.mark.parametrize(
    ("answer", "cls"),
    [
        (Responder(status=200, body="PAR1 cut"), MalformedResponse),
        (Responder.error(403), ServerUnavailable),
    ],
)
def test_nothing_is_left_of_files_that_did_not_come(
    server: DevServer, once: Api, tmp_path: Path, answer: Responder, cls: type[CommError]
):
    server.faults.add(Fault(STORAGE, answer, times=None))
    with pytest.raises(cls):
        once.run("ann/trials/r1").download_history_exports(tmp_path)
    assert list(tmp_path.iterdir()) == []
