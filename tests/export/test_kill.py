"""`kill -9` at random moments of an export: no torn state, nothing lost, nothing doubled."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from wb_ops import (
    Api,
    ExportRequest,
    Warehouse,
    WarehouseError,
    WarehouseRefused,
    connect,
    execute_export,
    plan_export,
)
from wb_ops.devserver import DevServer, Fault, Matcher, Responder

HERE = Path(__file__).parent
# PostgreSQL's commits are many statements: half as many kills take as long.
KILLS = {
    "duckdb": int(os.environ.get("WB_OPS_KILLS", "6")),
    "postgres": -(-int(os.environ.get("WB_OPS_KILLS", "6")) // 2),
}
SEED = int(os.environ.get("WB_OPS_SEED", "0"))
RUNS, ROWS, EVENTS, ROWS_LATER = 20, 300, 20, 5
WAYS = ("full", "incremental", "shards")
REQUEST = ExportRequest("ann", "trials", tables=("runs", "history", "system_metrics"))
DATASET = REQUEST.dataset_name

TORN = {
    "rows that no receipt speaks of": """
        select run_id from history where run_id not in
            (select run_id from _wb_receipts where table_name = 'history')""",
    "a receipt whose rows are not there": """
        select r.run_id from _wb_receipts r where table_name = 'history'
        and r.distinct_steps <> (select count(*) from history h where h.run_id = r.run_id)""",
    "system metrics that are not those of their receipt": """
        select r.run_id from _wb_receipts r where table_name = 'system_metrics' and r.rows_read
        <> (select count(*) from system_metrics s where s.run_id = r.run_id)""",
    "a row twice": """
        select run_id, _step from history group by run_id, _step having count(*) > 1""",
    "a system metric twice": """
        select run_id from system_metrics group by run_id, timestamp, key having count(*) > 1""",
    "a run twice": "select run_id from runs group by run_id having count(*) > 1",
    "a history without its run": """
        select distinct run_id from history where run_id not in (select run_id from runs)""",
    "a run that is flat and is not, or the other way round": """
        select coalesce(r.run_id, f.run_id) from runs r full join runs_flat f
        on r.run_id = f.run_id where r.run_id is null or f.run_id is null""",
    "a column without its name": f"""
        select column_name from information_schema.columns where table_name = 'history'
        and table_schema = '{DATASET}' and column_name like 'm%'
        and column_name not in (select column_name from _wb_columns)""",
}
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


@pytest.fixture(params=["duckdb", "postgres"])
def destinations(
    request: pytest.FixtureRequest, tmp_path: Path
) -> tuple[str, Warehouse, Warehouse]:
    """The name of a kind of warehouse, one that nobody disturbs, and one that is killed."""
    kind = request.param
    if kind == "duckdb":
        return kind, *(connect(f"duckdb:///{tmp_path / name}") for name in ("a.db", "b.db"))
    new_database = request.getfixturevalue("new_database")
    return kind, connect(new_database()), connect(new_database())


@contextmanager
def faults(server: DevServer) -> Iterator[None]:
    """Every tenth request or so goes wrong, in one way or the other."""
    ways = [Responder.error(503), Responder.reset(), Responder.cut_body()]
    for nth in range(3, 3000, 10):
        server.faults.add(Fault(Matcher(nth=nth), ways[nth // 10 % len(ways)]))
    yield
    server.faults.clear()


class Reader:
    """Looks for torn state the whole time, as somebody's dashboard would."""

    def __init__(self, warehouse: Warehouse) -> None:
        self.torn: list[str] = []
        self.looks = 0
        self._warehouse = warehouse
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Reader:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(0.2):
            try:
                if has_tables(self._warehouse):
                    self.torn += torn(self._warehouse)
                    self.looks += 1
            except WarehouseError:
                continue  # held by the writer, or not made yet


def start(server: DevServer, warehouse: Warehouse, way: str, folder: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, str(HERE / "export_once.py"), server.url, server.api_key,
         warehouse.url, way, str(folder)],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def kill_at(process: subprocess.Popen[str], moment: float) -> float | None:
    """Kill the process then; if it had ended before, how long it took."""
    began = time.monotonic()
    with suppress(subprocess.TimeoutExpired):
        process.wait(moment)
        return time.monotonic() - began
    process.kill()
    process.wait(30)
    return None


def torn(warehouse: Warehouse) -> list[str]:
    return [what for what, sql in TORN.items() if warehouse.query(sql, DATASET).num_rows]


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

    chosen, kills, attempt = random.Random(SEED), dict.fromkeys(WAYS, 0), 0
    with faults(project), Reader(connect(killed.url, lock_timeout_s=1)) as reader:
        while sum(kills.values()) < KILLS[kind] and attempt < 4 * KILLS[kind]:
            way = WAYS[attempt % len(WAYS)]
            grow(project, attempt)
            process = start(project, killed, way, tmp_path)
            took = kill_at(process, chosen.uniform(0, seconds[way]))
            # The first one may have been slower than those that are to be killed.
            seconds[way] = seconds[way] if took is None else min(seconds[way], took)
            kills[way] += took is None
            attempt += 1
            if has_tables(killed):
                assert torn(killed) == []
    print(f"{kind}: killed {kills}, {attempt - sum(kills.values())} ended before")
    assert sum(kills.values()) == KILLS[kind], "most exports had ended before their kill"
    assert reader.torn == []

    assert start(project, reference, "full", tmp_path).wait(120) == 0
    with Api({"base_url": project.url}, api_key=project.api_key) as api:
        execute_export(plan_export(REQUEST, api, killed), api, killed)
        assert plan_export(REQUEST, api, killed).runs == ()
    assert torn(killed) == []
    for table, columns in SAME.items():
        rows = f"select {columns} from {table} order by 1, 2"
        assert killed.query(rows, DATASET).equals(reference.query(rows, DATASET)), table
    rows_logged = RUNS * ROWS + attempt * ROWS_LATER
    assert killed.query("select 1 from history", DATASET).num_rows == rows_logged
    assert killed.query("select 1 from system_metrics", DATASET).num_rows == RUNS * EVENTS


def has_tables(warehouse: Warehouse) -> bool:
    sql = f"select 1 from information_schema.tables where table_schema = '{DATASET}'"
    try:
        return warehouse.query(sql).num_rows > 0
    except WarehouseRefused:
        return False  # the file is not there yet
