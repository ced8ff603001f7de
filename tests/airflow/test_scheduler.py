"""Scheduler, triggerer and LocalExecutor as they are deployed, against dev servers."""

from __future__ import annotations

import base64
import json
import shutil
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from airflow_deployment import Airflow
from airflow_events import consumed, exports, partitions, told
from airflow_servers import KEY, connection, held, runs_of_days, seeded_servers

from wb_ops import connect
from wb_ops.airflow.retry_policy import HAS_RETRY_POLICIES
from wb_ops.devserver import DevServer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]
THROTTLE = "wb_ops.airflow.triggers.throttle.ThrottleTrigger"
WAITING = """
select ti.state, t.classpath, p.include_deferred, ti.try_number
from task_instance ti join trigger t on t.id = ti.trigger_id
join slot_pool p on p.pool = ti.pool where ti.dag_id = ?
"""
DEFERRED = """
select ti.id, t.id as trigger, t.classpath from task_instance ti
join trigger t on t.id = ti.trigger_id where ti.dag_id = ? and ti.state = 'deferred'
"""
COUNT = """
select count(distinct run_id) as runs, count(distinct (run_id, _step)) as steps, count(*) as n
from history
"""
DAGS = Path(__file__).with_name("scheduled_dags.py")


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, DevServer]]:
    """One server for each Dag, so that each meets its own faults."""
    with seeded_servers() as found:
        yield found


@pytest.fixture(scope="module")
def airflow(
    servers: dict[str, DevServer], empty_database: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Airflow]:
    """Airflow with the Dags of scheduled_dags.py, running."""
    folder = tmp_path_factory.mktemp("airflow-deployment")
    (folder / "dags").mkdir()
    shutil.copy(DAGS, folder / "dags")
    deployment = Airflow(folder, {f"wandb_{n}": connection(n, s) for n, s in servers.items()})
    shutil.copy(empty_database, deployment.database)
    try:
        port = str(deployment.port)
        deployment.start("api-server", "--host", "127.0.0.1", "--port", port, "--workers", "1")
        deployment.start("dag-processor")
        # Tasks talk to it from their first moment on: one that cannot is a lost try.
        deployment.wait_for(deployment.has_server)
        deployment.start("scheduler", "--skip-serve-logs")
        deployment.start("triggerer", "--skip-serve-logs")
        with ThreadPoolExecutor(1) as pool:
            # From the start: the file is late for a minute only, whatever other tests wait for.
            url = servers["sharded"].storage_url
            deployment.killed = pool.submit(deployment.kill_a_reader, url)
            yield deployment
    finally:
        deployment.stop(*deployment.processes)


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def test_a_deferred_wait_holds_no_slot_and_burns_no_retry(
    airflow: Airflow, servers: dict[str, DevServer]
) -> None:
    """The only try, without retries, waits as a trigger and is resumed after the limit."""
    waiting = airflow.wait_for(lambda: airflow.rows(WAITING, "deferred"))
    # A deferred task is in no pool slot: Airflow counts what is running or queued there.
    assert waiting == [
        {"state": "deferred", "classpath": THROTTLE, "include_deferred": 0, "try_number": 1}
    ]
    task = airflow.ended("deferred")
    assert (task["state"], task["try_number"], task["max_tries"]) == ("success", 1, 0)
    limited, *later = [r for r in servers["deferred"].requests if r.operation == "Runs"]
    assert limited.status == 429
    assert later[0].time - limited.time >= 8


def test_retry_after_is_the_delay_of_the_next_try(airflow: Airflow) -> None:
    """429 with Retry-After: 12: Airflow is told 12 seconds, and waits them.

    Before Airflow 3.3 it is told nothing, and the task's own delay is waited: 20 seconds here.
    """
    if HAS_RETRY_POLICIES:
        # Airflow clears both when the next try starts; the history, which keeps them, comes then.
        (first,) = airflow.wait_for(lambda: [t for t in tries(airflow) if t["retry_reason"]])
        assert first["retry_delay_override"] == 12.0
        assert first["retry_reason"] == "W&B 429 Retry-After=12s"
    task = airflow.ended("limited")
    assert (task["state"], task["try_number"]) == ("success", 2)
    (first,) = airflow.rows("select * from task_instance_history where dag_id = 'limited'")
    assert first["try_number"] == 1
    assert first.get("retry_delay_override") == (12.0 if HAS_RETRY_POLICIES else None)
    gap = moment(task["start_date"]) - moment(first["end_date"])
    # The task's own delay, which would be taken otherwise, is ten minutes. Of what is more than
    # twelve seconds a busy machine needs some to start a process.
    asked = timedelta(seconds=12 if HAS_RETRY_POLICIES else 20)
    assert asked <= gap < asked + timedelta(seconds=120)


def tries(airflow: Airflow) -> list[dict[str, Any]]:
    """The only task of the limited Dag: as it is now, and its tries before."""
    history = "select * from task_instance_history where dag_id = 'limited'"
    waiting = [t for t in airflow.tasks("limited") if t["state"] == "up_for_retry"]
    return waiting or airflow.rows(history)


def test_a_refused_key_ends_at_the_first_try(airflow: Airflow) -> None:
    """401: three retries are there, and none is used."""
    task = airflow.ended("refused")
    assert (task["state"], task["try_number"], task["max_tries"]) == ("failed", 1, 3)
    assert airflow.rows("select * from task_instance_history where dag_id = 'refused'") == []
    # What the page of the task shows; before Airflow 3.3 only the log says it.
    shown = airflow.rows("select value from xcom where dag_id = 'refused' and key = 'retry_reason'")
    told = ["W&B 401 AuthenticationFailed: a retry cannot help"] if HAS_RETRY_POLICIES else []
    assert [json.loads(one["value"]) for one in shown] == told


def test_a_worker_killed_in_a_mapped_export_converges(airflow: Airflow) -> None:
    """kill -9 while a shard waits for a file: its second try reads it, every row is there once."""
    airflow.killed.result()
    (commit,) = airflow.wait_for(
        lambda: [t for t in airflow.tasks("sharded") if t["task_id"] == "commit" and t["end_date"]]
    )
    assert commit["state"] == "success"
    shards = [t for t in airflow.tasks("sharded") if t["task_id"] == "shard"]
    assert sorted(t["try_number"] for t in shards) == [1, 1, 2]
    found = connect(f"duckdb:///{airflow.folder}/sharded.duckdb").query(COUNT, "ann__demo")
    assert found.to_pylist() == [{"runs": 3, "steps": 8, "n": 8}]


def test_a_finished_run_reaches_a_consumer(airflow: Airflow, servers: dict[str, DevServer]) -> None:
    """W&B, watcher, export, table, consumer; and again for what ended while no triggerer ran.

    Whether it was asked to end or was killed. So does a run that a deferred sensor waits for.
    """
    server = servers["live"]
    assert consumed(airflow, "run0")
    (deferred,) = airflow.wait_for(lambda: airflow.rows(DEFERRED, "waiting"))
    for run_id, by in {"run1": signal.SIGINT, "run2": signal.SIGKILL}.items():
        server.seed_run("ann", "demo", run_id, state="running", history=[{"loss": 2.0}])
        await_questions(airflow, servers["waiting"])
        airflow.stop("triggerer", by=by)
        server.finish_run("ann", "demo", run_id, exit_code=0)
        assert airflow.rows(DEFERRED, "waiting") == [deferred]
        if by is signal.SIGKILL:
            servers["waiting"].finish_run("ann", "demo", "run0", exit_code=0)
        airflow.start("triggerer", "--skip-serve-logs")
        assert consumed(airflow, run_id)
    waited = airflow.ended("waiting")
    assert (waited["state"], waited["try_number"], waited["max_tries"]) == ("success", 1, 0)
    extras = [extra for extra in exports(airflow) if extra["row_count"]]
    # Two of run0, one of each that came later, and one of each of the day before.
    assert sum(extra["row_count"] for extra in extras) == 6
    assert all(extra["watermark"] and extra["schema_hash"] for extra in extras)


def await_questions(airflow: Airflow, server: DevServer) -> None:
    """Wait until the triggerer that runs now has asked this server twice."""
    before = len(server.requests)
    airflow.wait_for(lambda: len(server.requests) >= before + 2)


@pytest.mark.airflow_3_3
def test_what_was_written_reaches_a_daily_consumer(
    airflow: Airflow, servers: dict[str, DevServer]
) -> None:
    """The watcher's events know no partition; the export's do: the days of the runs' creation.

    The consumer exports the day of its partition, and no run of another.
    """
    days = runs_of_days(servers["live"], "demo")
    assert sum(len(runs) for runs in days.values()) == 5
    url = f"duckdb:///{airflow.folder}/daily.duckdb"
    for day, runs in days.items():
        complete = dict.fromkeys(runs, "complete")
        dataset = f"day_{day.replace('-', '_')}"
        airflow.wait_for(lambda d=dataset, wanted=complete: held(url, d) == wanted)
    ended = dict.fromkeys(days, "success")
    airflow.wait_for(lambda: partitions(airflow, "daily") == ended)


def test_a_partition_is_exported_alone_scheduled_or_backfilled(
    airflow: Airflow, servers: dict[str, DevServer]
) -> None:
    """Midnight's Dag run takes the day that is over; a backfill takes two days before it.

    Of each day the first and the last moment, and no run of the days around.
    """
    url = f"duckdb:///{airflow.folder}/nightly.duckdb"
    days = runs_of_days(servers["nightly"], "nightly")
    assert airflow.ended("nightly")["state"] == "success"
    (key,) = partitions(airflow, "nightly")
    yesterday = key.removesuffix("T00:00:00")
    assert len(days[yesterday]) == 2
    assert held(url, "ann__nightly") == dict.fromkeys(days[yesterday], "complete")
    assert told(airflow) == {yesterday: 2}

    last = datetime.fromisoformat(yesterday) - timedelta(days=2)
    chosen = [f"{last - timedelta(days=1):%Y-%m-%d}", f"{last:%Y-%m-%d}"]
    window = ("--from-date", chosen[0], "--to-date", chosen[1])
    airflow.run("backfill", "create", "--dag-id", "nightly", *window)
    keys = partitions(airflow, "nightly").keys()
    airflow.wait_for(lambda: partitions(airflow, "nightly") == dict.fromkeys(keys, "success"))
    made = {key.removesuffix("T00:00:00") for key in keys}
    assert len(made) == 3
    if HAS_RETRY_POLICIES:
        # Before Airflow 3.3 a backfill's range is one of run dates.
        assert made == {yesterday, *chosen}
    runs = set().union(*(days[day] for day in made))
    assert held(url, "ann__nightly") == dict.fromkeys(runs, "complete")
    assert told(airflow) == dict.fromkeys(made, 2)


def test_the_key_is_in_no_file(airflow: Airflow) -> None:
    """Not in the metadata database, in no log, no lineage event and no configuration."""
    forms = (KEY.encode(), base64.b64encode(f"api:{KEY}".encode()))
    files = [path for path in airflow.folder.rglob("*") if path.is_file()]
    assert {"airflow.db", "triggerer.log", "lineage.json"} <= {path.name for path in files}
    lineage = (airflow.folder / "lineage.json").read_text()
    assert '"rowCount":' in lineage.replace(" ", "")
    assert [path for path in files if any(form in path.read_bytes() for form in forms)] == []
