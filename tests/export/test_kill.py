"""`kill -9` at random moments of an export: no torn state, nothing lost, nothing doubled."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from wb_ops import Api, ExportRequest, Warehouse, connect, execute_export, plan_export
from wb_ops.devserver import DevServer

HERE = Path(__file__).parent
KILLS = int(os.environ.get("WB_OPS_KILLS", "10"))
SEED = int(os.environ.get("WB_OPS_SEED", "0"))
RUNS, ROWS = 30, 400
REQUEST = ExportRequest("ann", "trials")
DATASET = REQUEST.dataset_name

TORN = {
    "rows that no receipt speaks of": """
        select run_id from history where run_id not in
            (select run_id from _wb_receipts where table_name = 'history')""",
    "a receipt whose rows are not there": """
        select r.run_id from _wb_receipts r where table_name = 'history'
        and r.distinct_steps <> (select count(*) from history h where h.run_id = r.run_id)""",
    "a row twice": "select run_id, _step from history group by all having count(*) > 1",
    "a run twice": "select run_id from runs group by all having count(*) > 1",
    "a history without its run": """
        select distinct run_id from history where run_id not in (select run_id from runs)""",
    "a column without its name": """
        select column_name from information_schema.columns where table_name = 'history'
        and column_name like 'm%' and column_name not in (select column_name from _wb_columns)""",
}


@pytest.fixture
def project(server: DevServer) -> DevServer:
    server.seed_runs(
        {
            "entity": "ann", "project": "trials", "run_id": f"r{run}",
            "history": [
                {"_step": step, "loss": (run + 1) / (step + 1), f"m{run % 3}": float(step)}
                for step in range(ROWS)
            ],
        }
        for run in range(RUNS)
    )  # fmt: skip
    return server


def start(server: DevServer, warehouse: Warehouse, mode: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, str(HERE / "export_once.py"), server.url, server.api_key,
         warehouse.url, mode],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def moments(seconds: float) -> Iterator[float]:
    chosen = random.Random(SEED)
    return (chosen.uniform(0, seconds) for _ in range(KILLS))


def torn(warehouse: Warehouse) -> list[str]:
    return [what for what, sql in TORN.items() if warehouse.query(sql, DATASET).num_rows]


def test_killed_exports_converge(project: DevServer, tmp_path: Path):
    reference, killed = (connect(f"duckdb:///{tmp_path / name}") for name in ("a.db", "b.db"))
    process = start(project, reference, "full")
    began = time.monotonic()
    assert process.wait(120) == 0
    seconds = time.monotonic() - began

    survived = 0
    for moment in moments(seconds):
        process = start(project, killed, "full")
        time.sleep(moment)
        survived += process.poll() is not None
        process.kill()
        process.wait(30)
        if (tmp_path / "b.db").exists() and has_tables(killed):
            assert torn(killed) == []
    assert survived <= KILLS / 2, "most exports had ended before their kill: little was tested"

    with Api({"base_url": project.url}, api_key=project.api_key) as api:
        execute_export(plan_export(REQUEST, api, killed), api, killed)
        assert plan_export(REQUEST, api, killed).runs == ()
    assert torn(killed) == []
    rows = "select run_id, _step, loss, m0, m1, m2 from history order by run_id, _step"
    assert killed.query(rows, DATASET).num_rows == RUNS * ROWS
    assert killed.query(rows, DATASET).equals(reference.query(rows, DATASET))
    runs = "select * exclude (_load_id) from runs order by run_id"
    assert killed.query(runs, DATASET).equals(reference.query(runs, DATASET))


def has_tables(warehouse: Warehouse) -> bool:
    sql = f"select 1 from information_schema.tables where table_schema = '{DATASET}'"
    return warehouse.query(sql).num_rows > 0
