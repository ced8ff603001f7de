"""`kill -9` at random moments of a backfill: it converges, and the journal knows what was done."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import signal
import sys
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import pytest

from wb_ops import (
    Api,
    BackfillPlan,
    BackfillRequest,
    Warehouse,
    connect,
    execute_backfill,
    plan_backfill,
)
from wb_ops.backfill import list_backfills
from wb_ops.devserver import DevServer, Fault, Matcher, Responder

HERE = Path(__file__).parent
# PostgreSQL's journal costs more to open: a third as many kills.
KILLS = {
    "duckdb": int(os.environ.get("WB_OPS_KILLS", "6")),
    "postgres": -(-int(os.environ.get("WB_OPS_KILLS", "6")) // 3),
}
SEED = int(os.environ.get("WB_OPS_SEED", "0"))
RUNS = 100
THEIRS = '{"acc": 0.50, "best": "old", "h": {"bins": [1e400, NaN]}}'
DATASET = "ann__trials"


# A process that has imported all forks one for each backfill: a hundred kills in minutes.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    ["wb_ops.backfill.execute", "wb_ops.warehouse.duckdb", "wb_ops.warehouse.postgres"]
)
sys.path.insert(0, str(HERE))


@pytest.fixture(params=["duckdb", "postgres"])
def journal(request: pytest.FixtureRequest, tmp_path: Path) -> Warehouse:
    """Where the backfills are recorded."""
    if request.param == "duckdb":
        return connect(f"duckdb:///{tmp_path / 'killed.duckdb'}")
    return connect(request.getfixturevalue("new_database")())


@dataclass
class Running:
    """A backfill under way; it tells what it did through a pipe that must stay open."""

    process: ForkServerProcess
    told: Connection

    def ended(self, timeout_s: float) -> int | None:
        """Wait for its end; None if it has not come."""
        self.process.join(timeout_s)
        return self.process.exitcode

    def kill(self) -> None:
        self.process.kill()
        self.process.join(30)


def start(server: DevServer, warehouse_url: str, attempt: int) -> Running:
    from backfill_once import run

    arguments = [server.url, server.api_key, warehouse_url, "best", value(attempt), DATASET]
    told, tell = FORKS.Pipe(duplex=False)
    process = FORKS.Process(target=run, args=(arguments, tell.send), daemon=True)
    process.start()
    assert told.recv() == "ready"
    return Running(process, told)


def value(attempt: int) -> str:
    return f"[{attempt}, NaN]"


def summaries(api: Api) -> dict[str, str]:
    return {node["name"]: node["summaryMetrics"] for node in api.source("ann/trials").iter_nodes()}


def journaled(warehouse: Warehouse) -> dict[str, str]:
    """What the journal says was written last to each run."""
    sql = """select run_id, new_value as value from _wb_backfills one where event = 'written'
             and recorded_at = (select max(recorded_at) from _wb_backfills other
                 where other.event = 'written' and other.run_id = one.run_id)"""
    rows = warehouse.query(sql, DATASET).to_pylist()
    return {row["run_id"]: row["value"] for row in rows}


def execute(api: Api, warehouse: Warehouse, **source: str) -> None:
    request = BackfillRequest("ann", "trials", **source)
    execute_backfill(plan_backfill(request, api, warehouse), api, warehouse)


def holding(api: Api, text: str) -> set[object]:
    """The ids of the runs with this summary, as writes name them."""
    nodes = api.source("ann/trials").iter_nodes()
    return {node["id"] for node in nodes if node["summaryMetrics"] == text}


def finish(server: DevServer, api: Api, journal: Warehouse, attempt: int) -> bool:
    """Resume what was killed: what is there is not written again. False if nothing was begun."""
    sql = "select distinct backfill_id as id from _wb_backfills where new_value = "
    found = journal.query(f"{sql}'{value(attempt)}'", DATASET)["id"].to_pylist()
    if not found:
        return False
    wanted = THEIRS.replace('"old"', value(attempt))
    there, sent = holding(api, wanted), len(server.requests)
    execute(api, journal, resume=found[0])
    writes = [one for one in server.requests[sent:] if one.operation == "UpsertBucket"]
    assert not there & {id_ for one in writes for id_ in one.variables.values()}
    assert len(holding(api, wanted)) == RUNS
    counts = {one.backfill_id: one.counts for one in list_backfills(journal, DATASET)}
    assert counts[found[0]] == {"written": RUNS}
    return True


def test_killed_backfills_converge_and_can_be_taken_back(server: DevServer, journal: Warehouse):
    kills = KILLS[journal.url.split(":")[0].removesuffix("ql")]
    server.seed_runs(
        {"entity": "ann", "project": "trials", "run_id": f"r{index:03}", "summary": THEIRS}
        for index in range(RUNS)
    )
    first = start(server, journal.url, 0)
    began = time.monotonic()
    assert first.ended(120) == 0
    seconds = time.monotonic() - began

    chosen, killed, finished, last = random.Random(SEED), 0, 0, 0
    while killed < kills:
        last += 1
        running = start(server, journal.url, last)
        began = time.monotonic()
        if running.ended(chosen.uniform(0, seconds)) is None:
            running.kill()
            killed += 1
            # Every second one is finished; the others are overtaken by the next.
            if killed % 2:
                with Api({"base_url": server.url}, api_key=server.api_key) as api:
                    finished += finish(server, api, journal, last)
        else:
            # The first one may have been slower than those that are to be killed.
            seconds = min(seconds, time.monotonic() - began)
        assert last <= 4 * kills, "most had ended before their kill: little was tested"
    print(f"{killed} of {last} were killed, within {seconds:.2f} s; {finished} were resumed")
    last += 1
    assert start(server, journal.url, last).ended(120) == 0

    with Api({"base_url": server.url}, api_key=server.api_key) as api:
        wanted = THEIRS.replace('"old"', value(last))
        assert set(summaries(api).values()) == {wanted}
        assert set(journaled(journal).values()) == {value(last)}
        backfills = list_backfills(journal, DATASET)
        began = time.monotonic()
        for record in backfills:
            execute(api, journal, undo=record.backfill_id)
        print(f"{len(backfills)} were taken back in {time.monotonic() - began:.0f} s")
        assert set(summaries(api).values()) == {THEIRS}
        for record in backfills:
            execute(api, journal, resume=record.backfill_id)
        assert all(record.is_finished for record in list_backfills(journal, DATASET))


def test_a_killed_backfill_is_finished_under_its_id(server: DevServer, journal: Warehouse):
    """The kill comes while the second write is on its way: it is carried out and not journaled."""
    server.seed_runs(
        {"entity": "ann", "project": "trials", "run_id": f"r{index:03}", "summary": THEIRS}
        for index in range(RUNS)
    )
    running: list[Running] = []
    server.faults.add(
        Fault(
            Matcher(operation="UpsertBucket", nth=2),
            Responder(),
            action=lambda: running[0].process.kill(),
        )
    )
    running.append(start(server, journal.url, 1))
    assert running[0].ended(60) == -signal.SIGKILL
    with Api({"base_url": server.url}, api_key=server.api_key) as api:
        (record,) = list_backfills(journal, DATASET)
        assert not record.is_finished
        execute(api, journal, resume=record.backfill_id)
        assert set(summaries(api).values()) == {THEIRS.replace('"old"', value(1))}
        (record,) = list_backfills(journal, DATASET)
        assert record.counts == {"written": RUNS}


class Killed(BaseException):
    """What no part of a backfill may catch."""


def test_a_stored_plan_is_executed_again_after_a_kill_and_its_undo_restores_all(
    server: DevServer, tmp_path: Path
):
    """It ends between a write and its outcome: the run holds our value, the journal an intent."""
    server.seed_run("ann", "trials", "r0", summary=THEIRS)
    server.seed_run("ann", "trials", "r1", summary=THEIRS)
    warehouse = connect(f"duckdb:///{tmp_path / 'killed.duckdb'}")
    request = BackfillRequest("ann", "trials", compute=lambda run: {"best": 1}, safe=True)

    def die(done: int, total: int) -> None:
        raise Killed

    with Api({"base_url": server.url}, api_key=server.api_key) as api:
        text = plan_backfill(request, api, warehouse).to_json()
        with contextlib.suppress(Killed):
            execute_backfill(BackfillPlan.from_json(text), api, warehouse, die)
        (record,) = list_backfills(warehouse, DATASET)
        assert record.counts == {"intent": 2}
        report = execute_backfill(BackfillPlan.from_json(text), api, warehouse)
        assert (len(report.written), report.unchanged) == (2, 0)
        (record,) = list_backfills(warehouse, DATASET)
        assert record.counts == {"written": 2}
        execute(api, warehouse, undo=record.backfill_id)
        assert set(summaries(api).values()) == {THEIRS}
