"""A run worker that is killed in the middle leaves nothing that the next run does not mend."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from wb_ops.devserver import Fault, Matcher, Responder

WORKER = """
import os, dagster as dg
from wb_ops.dagster import WandbResource, WarehouseResource, build_wandb_assets
dg.materialize(
    [build_wandb_assets(entity="ann", project="demo", max_workers=1)],
    resources={
        "wandb": WandbResource(base_url=os.environ["TEST_SERVER"]),
        "warehouse": WarehouseResource(url=os.environ["TEST_WAREHOUSE"]),
    },
)
"""
TABLES = {
    table: f"select * exclude (_load_id) from {table} order by all" for table in ("runs", "history")
}


@pytest.mark.slow
def test_a_killed_worker_is_continued_to_the_same_tables(bench, tmp_path: Path):
    whole = tmp_path / "whole"
    whole.mkdir()
    stuck = Fault(Matcher(path="/exports/*", nth=2), Responder.slow(8), times=1)
    bench.server.faults.add(stuck)
    worker = start_worker(bench)
    until_second_history(bench, worker)
    worker.kill()
    worker.wait(10)
    bench.server.faults.clear()
    assert bench.run().success
    mended = {table: bench.rows(sql) for table, sql in TABLES.items()}
    bench.folder = whole
    assert bench.run().success
    assert mended == {table: bench.rows(sql) for table, sql in TABLES.items()}
    assert [len(rows) for rows in mended.values()] == [3, 18]


def start_worker(bench) -> subprocess.Popen[bytes]:
    env = {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "WANDB_API_KEY": bench.key,
        "TEST_SERVER": bench.server.url,
        "TEST_WAREHOUSE": bench.resources["warehouse"].url,
    }
    return subprocess.Popen([sys.executable, "-c", WORKER], env=env, stderr=subprocess.DEVNULL)


def until_second_history(bench, worker: subprocess.Popen[bytes]) -> None:
    """Wait until the worker has one history and waits for another."""
    for _ in range(600):
        asked = [one for one in bench.server.requests if one.path.startswith("/exports/")]
        if len(asked) >= 2 or bench.server.requests.operations().count("RunParquetHistory") >= 2:
            return
        assert worker.poll() is None
        time.sleep(0.1)
    worker.kill()
    pytest.fail("the worker has not come so far")
