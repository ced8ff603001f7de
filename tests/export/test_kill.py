"""`kill -9` at random moments of an export, and two exports at once: nothing is torn or lost."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from torn_state import Reader, has_tables, torn

from wb_ops import (
    Api,
    ExportRequest,
    Warehouse,
    connect,
    execute_export,
    plan_export,
)
from wb_ops.devserver import DevServer, Fault, Matcher, Responder

HERE = Path(__file__).parent
# What commits in many statements or files gets fewer kills, which take as long.
SHARES = {"duckdb": 1, "postgres": 2, "parquet": 4, "delta": 4}
KILLS = int(os.environ.get("WB_OPS_KILLS", "4"))
SEED = int(os.environ.get("WB_OPS_SEED", "0"))
RUNS, ROWS, EVENTS, ROWS_LATER = 20, 300, 20, 5
WAYS = ("full", "incremental", "shards")
REQUEST = ExportRequest("ann", "trials", tables=("runs", "history", "system_metrics"))
DATASET = REQUEST.dataset_name

SAME = {
    "history": "run_id, _step, loss, m0, m1, m2",
    "runs": "run_id, display_name, state, config, summary, content_hash, history_rows",
    "runs_flat": "run_id, config__lr",
    "system_metrics": "run_id, timestamp, key, value, sampled",
}


@pytest.fixture
def project(server: DevServer) -> DevServer:
    server.seed_runs(
        {
            "entity": "ann", "project": "trials", "run_id": f"r{run}", "config": {"lr": run},
            "history": [
                {"_step": step, "loss": (run + 1) / (step + 1), f"m{run % 3}": float(step)}
                for step in range(ROWS)
            ],
            "events": [{"_timestamp": 1.0 * at, "system.cpu": at} for at in range(EVENTS)],
        }
        for run in range(RUNS)
    )  # fmt: skip
    return server


@pytest.fixture(params=SHARES)
def destinations(
    request: pytest.FixtureRequest, tmp_path: Path
) -> tuple[str, Warehouse, Warehouse]:
    """The name of a kind of warehouse, one that nobody disturbs, and one that is killed."""
    kind = request.param
    if kind == "postgres":
        new_database = request.getfixturevalue("new_database")
        return kind, connect(new_database()), connect(new_database())
    return kind, *(connect(f"{kind}:///{tmp_path / name}") for name in ("a.db", "b.db"))


@contextmanager
def faults(server: DevServer) -> Iterator[None]:
    """Every tenth request or so goes wrong, in one way or the other."""
    ways = [Responder.error(503), Responder.reset(), Responder.cut_body()]
    for nth in range(3, 3000, 10):
        server.faults.add(Fault(Matcher(nth=nth), ways[nth // 10 % len(ways)]))
    yield
    server.faults.clear()


def start(server: DevServer, warehouse: Warehouse, way: str, folder: Path) -> subprocess.Popen[str]:
    process = make_ready(server, warehouse, way, folder)
    let_go(process)
    return process


def make_ready(
    server: DevServer, warehouse: Warehouse, way: str, folder: Path
) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, str(HERE / "export_once.py"), server.url, server.api_key,
         warehouse.url, way, str(folder)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def let_go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.close()


def kill_at(process: subprocess.Popen[str], moment: float) -> float | None:
    """Kill the process then; if it had ended before, how long it took."""
    began = time.monotonic()
    with suppress(subprocess.TimeoutExpired):
        process.wait(moment)
        return time.monotonic() - began
    process.kill()
    process.wait(30)
    return None


def grow(server: DevServer, attempt: int) -> None:
    """Something for an incremental export to do: a run goes on, another is edited."""
    first = ROWS + ROWS_LATER * attempt
    rows = [{"_step": step, "loss": 1 / step} for step in range(first, first + ROWS_LATER)]
    server.append_history("ann", "trials", f"r{attempt % RUNS}", rows)
    server.edit_run("ann", "trials", f"r{(attempt + 1) % RUNS}", config={"lr": attempt})


@pytest.mark.timeout(3600)
def test_killed_exports_converge(
    project: DevServer, destinations: tuple[str, Warehouse, Warehouse], tmp_path: Path
):
    """Whole, incremental and sharded exports in turn, each killed, while the project goes on."""
    kind, reference, killed = destinations
    began = time.monotonic()
    assert start(project, reference, "full", tmp_path).wait(120) == 0
    seconds = dict.fromkeys(WAYS, time.monotonic() - began)

    wanted = -(-KILLS // SHARES[kind])
    chosen, kills, attempt = random.Random(SEED), dict.fromkeys(WAYS, 0), 0
    with faults(project), Reader(connect(killed.url, lock_timeout_s=1), DATASET) as reader:
        while sum(kills.values()) < wanted and attempt < 4 * wanted:
            way = WAYS[attempt % len(WAYS)]
            grow(project, attempt)
            process = start(project, killed, way, tmp_path)
            took = kill_at(process, chosen.uniform(0, seconds[way]))
            # The first one may have been slower than those that are to be killed.
            seconds[way] = seconds[way] if took is None else min(seconds[way], took)
            kills[way] += took is None
            attempt += 1
            if has_tables(killed, DATASET):
                assert torn(killed, DATASET) == []
    print(f"{kind}: killed {kills}, {attempt - sum(kills.values())} ended before")
    assert sum(kills.values()) == wanted, "most exports had ended before their kill"
    assert reader.torn == []

    assert start(project, reference, "full", tmp_path).wait(120) == 0
    with Api({"base_url": project.url}, api_key=project.api_key) as api:
        execute_export(plan_export(REQUEST, api, killed), api, killed)
        assert plan_export(REQUEST, api, killed).runs == ()
    assert torn(killed, DATASET) == []
    assert_equal(killed, reference, attempt)


def test_two_processes_at_once_lose_and_double_nothing(
    project: DevServer, destinations: tuple[str, Warehouse, Warehouse], tmp_path: Path
):
    """Into a place that is not there yet, then into what has grown since."""
    _, reference, shared = destinations
    rounds = [("full", "full"), ("incremental", "incremental")]
    with Reader(connect(shared.url, lock_timeout_s=1), DATASET) as reader:
        for number, ways in enumerate(rounds):
            writers = [make_ready(project, shared, way, tmp_path) for way in ways]
            for writer in writers:
                let_go(writer)
            assert [writer.wait(120) for writer in writers] == [0, 0]
            assert torn(shared, DATASET) == []
            if number < len(rounds) - 1:
                grow(project, number)
    assert reader.torn == []
    assert start(project, reference, "full", tmp_path).wait(120) == 0
    assert_equal(shared, reference, len(rounds) - 1)


def assert_equal(warehouse: Warehouse, reference: Warehouse, times_grown: int) -> None:
    for table, columns in SAME.items():
        rows = f"select {columns} from {table} order by 1, 2"
        assert warehouse.query(rows, DATASET).equals(reference.query(rows, DATASET)), table
    rows_logged = RUNS * ROWS + times_grown * ROWS_LATER
    assert warehouse.query("select 1 from history", DATASET).num_rows == rows_logged
    assert warehouse.query("select 1 from system_metrics", DATASET).num_rows == RUNS * EVENTS
