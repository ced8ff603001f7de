"""Several processes write and read one DuckDB file at the same time; nobody loses anything."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import dagster as dg
import duckdb
import pytest
from held_file import held
from torn_state import Reader

from wb_ops import WarehouseBusy, connect
from wb_ops.dagster import WarehouseResource
from wb_ops.errors import AdviceKind

# Dagster exports the first two, Airflow the second as well, the command the third.
PROJECTS = ("one", "two", "three")
RUNS, ROWS = 3, 20


def test_a_step_that_finds_the_file_taken_gives_way_and_says_when_to_come_back(bench):
    path = bench.folder / "warehouse.duckdb"
    with held(path):
        busy = WarehouseResource(url=f"duckdb:///{path}", lock_timeout_s=0.2)
        with pytest.raises(WarehouseBusy) as caught:
            busy.get_warehouse().query("select 1")
        assert caught.value.advice.kind is AdviceKind.AFTER
        assert caught.value.advice.seconds > 0


@pytest.mark.slow
def test_a_run_of_two_processes_an_airflow_worker_a_command_and_a_reader_share_a_file(
    bench, monkeypatch: pytest.MonkeyPatch
):
    seed(bench)
    path = bench.folder / "warehouse.duckdb"
    duckdb.connect(str(path)).close()
    url = f"duckdb:///{path}"
    monkeypatch.setenv("WANDB_API_KEY", bench.key)
    monkeypatch.setenv("WANDB_BASE_URL", bench.server.url)
    monkeypatch.setenv("TEST_SERVER", bench.server.url)
    monkeypatch.setenv("TEST_WAREHOUSE", url)
    with ThreadPoolExecutor() as threads, dg.instance_for_test() as instance:
        dagster = threads.submit(execute, instance)
        others = [
            threads.submit(export_by_command, url), threads.submit(export_by_airflow, bench, url)
        ]  # fmt: skip
        # Where the file is taken it is told to wait; any other error counts as torn.
        datasets = [f"ann__{project}" for project in PROJECTS]
        with Reader(connect(url, lock_timeout_s=0.2), *datasets) as reader:
            assert dagster.result()
            assert [other.result() for other in others] == [0, 0]
    assert reader.torn == []
    assert reader.looks > 0
    for project in PROJECTS:
        (row,) = (
            connect(url)
            .query(
                "select count(*) as rows, count(distinct (run_id, _step)) as steps from history",
                f"ann__{project}",
            )
            .to_pylist()
        )
        assert row == {"rows": RUNS * ROWS, "steps": RUNS * ROWS}


def seed(bench) -> None:
    history = [{"_step": step, "loss": step / 7} for step in range(ROWS)]
    bench.server.seed_runs(
        {"entity": "ann", "project": project, "run_id": f"r{number}", "history": history}
        for project in PROJECTS
        for number in range(RUNS)
    )


def execute(instance: dg.DagsterInstance) -> bool:
    """A run of two steps, each in a process of its own."""
    folder = str(Path(__file__).parent)
    job = dg.build_reconstructable_job(
        "shared_file_project", "both", (), {}, reconstructor_working_directory=folder
    )
    with dg.execute_job(job, instance) as result:
        return result.success


def export_by_command(url: str) -> int:
    command = [str(Path(sys.executable).parent / "wb-ops"), "export", "ann/three", "--to", url]
    return subprocess.run(command, check=False).returncode


def export_by_airflow(bench, url: str) -> int:
    """A task process under its supervisor, as an executor of Airflow starts it."""
    folder = bench.folder / "airflow"
    folder.mkdir()
    script = Path(__file__).with_name("airflow_worker.py")
    command = [sys.executable, str(script), bench.server.url, bench.key, url, str(folder)]
    # What this process knows of W&B is not what a worker knows.
    environ = {name: text for name, text in os.environ.items() if not name.startswith("WANDB_")}
    return subprocess.run(command, check=False, env=environ).returncode
