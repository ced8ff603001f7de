"""Scheduler, triggerer and LocalExecutor as they are deployed, against dev servers."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest

from wb_ops import Api, connect
from wb_ops.airflow.retry_policy import HAS_RETRY_POLICIES
from wb_ops.devserver import ApiKey, DevServer, Fault, Matcher, Responder
from wb_ops.errors import WarehouseError

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]
KEY = "slowkey0" * 5
LISTING = Matcher(operation="Runs")
FILE = Matcher(path="*/exports/*", origin="storage")
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
HELD = """
select run_id, status from runs left join (
    select run_id, max(status) as status from _wb_receipts where table_name = 'history'
    group by run_id having count(*) = 1) using (run_id)
"""
LAST_MOMENT = timedelta(days=1) - timedelta(microseconds=1)
DAGS = Path(__file__).with_name("scheduled_dags.py")


def free_port() -> int:
    with closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class Airflow:
    """A deployment in a folder: its processes and its metadata database."""

    def __init__(self, folder: Path, connections: dict[str, str]) -> None:
        self.folder = folder
        self.port = free_port()
        self.database = folder / "airflow.db"
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.killed: Future[None] = Future()
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("AIRFLOW", "WANDB"))},
            **{f"AIRFLOW_CONN_{name.upper()}": text for name, text in connections.items()},
            "AIRFLOW_HOME": str(folder),
            "AIRFLOW__CORE__DAGS_FOLDER": str(folder / "dags"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
            "AIRFLOW__CORE__PARALLELISM": "2",
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{self.port}/execution/",
            # A busy machine: the first answer takes long, and a request given up is a lost try.
            "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "60",
            "AIRFLOW__CORE__DAGBAG_IMPORT_TIMEOUT": "300",
            # How soon the triggers of a killed triggerer are taken over.
            "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "2",
            "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "10",
            "AIRFLOW__API_AUTH__JWT_SECRET": "s" * 64,
            "AIRFLOW__API__SECRET_KEY": "s" * 64,
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{self.database}",
            "WB_OPS_TEST_FOLDER": str(folder),
            "AIRFLOW__OPENLINEAGE__TRANSPORT": json.dumps(
                {"type": "file", "log_file_path": str(folder / "lineage.json"), "append": True}
            ),
        }

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "airflow", *arguments]

    def start(self, *arguments: str) -> None:
        """Start one of Airflow's processes, in a group of its own."""
        with (self.folder / f"{arguments[0]}.log").open("ab") as log:
            self.processes[arguments[0]] = subprocess.Popen(
                self.command(*arguments),
                env=self.environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def stop(self, *names: str, by: signal.Signals = signal.SIGKILL) -> None:
        """End processes of ours by this signal, then what is left of their groups."""
        ending = [self.processes.pop(name) for name in names]
        for process in ending:
            os.killpg(process.pid, by)
        for process in ending:
            with suppress(subprocess.TimeoutExpired):
                process.wait(20)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)

    def run(self, *arguments: str) -> None:
        """Run a command of Airflow's to its end, as an operator of the deployment would."""
        done = subprocess.run(
            self.command(*arguments), env=self.environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def has_server(self) -> bool:
        """Whether the API server accepts connections."""
        with closing(socket.socket()) as client:
            return client.connect_ex(("127.0.0.1", self.port)) == 0

    def process_reading_from(self, url: str) -> psutil.Process | None:
        """The process below the scheduler that has a connection to this server."""
        port = urlsplit(url).port
        for process in psutil.Process(self.processes["scheduler"].pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                if any(c.raddr and c.raddr.port == port for c in process.net_connections()):
                    return process
        return None

    def kill_a_reader(self, url: str) -> None:
        """Kill -9 the first process below the scheduler that reads from this server."""
        self.wait_for(lambda: self.process_reading_from(url)).kill()

    def rows(self, sql: str, *values: Any) -> list[dict[str, Any]]:
        uri = f"file:{self.database}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True, timeout=30)) as connection:
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute(sql, values)]

    def tasks(self, dag_id: str) -> list[dict[str, Any]]:
        return self.rows("select * from task_instance where dag_id = ? order by start_date", dag_id)

    def wait_for(self, what: Callable[[], Any], limit_s: float = 600.0) -> Any:
        """The first true answer; a failure that shows the logs if none comes in time."""
        deadline = time.monotonic() + limit_s
        while time.monotonic() < deadline:
            if answer := what():
                return answer
            time.sleep(0.3)
        logs = "\n".join(p.read_text()[-2000:] for p in sorted(self.folder.glob("*.log")))
        return pytest.fail(f"nothing within {limit_s} s\n{logs}")

    def ended(self, dag_id: str) -> dict[str, Any]:
        """The Dag's only task instance, when it has ended."""

        def find() -> list[dict[str, Any]]:
            return [t for t in self.tasks(dag_id) if t["state"] in ("success", "failed")]

        found: dict[str, Any] = self.wait_for(find)[0]
        return found


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, DevServer]]:
    """One server for each Dag, so that each meets its own faults."""
    with ExitStack() as stack:
        found = {}
        for name in ("limited", "refused", "deferred", "sharded", "waiting", "live", "nightly"):
            server = DevServer(api_keys={KEY: ApiKey(username="ann")})
            found[name] = stack.enter_context(server)
            state = "running" if name == "waiting" else "finished"
            server.seed_run(
                "ann", "demo", "run0", state=state, history=[{"loss": 1.0}, {"loss": 0.5}]
            )
        found["limited"].faults.add(Fault(LISTING, Responder.rate_limited(12)))
        for run_id in ("run1", "run2"):
            found["sharded"].seed_run("ann", "demo", run_id, history=[{"loss": 2.0}] * 3)
        # The first file to be read does not come, until whoever waits for it is killed.
        found["sharded"].faults.add(Fault(FILE, Responder.slow(60)))
        found["deferred"].faults.add(Fault(LISTING, Responder.rate_limited(8)))
        seed_days(found["live"], "demo", days=1)
        seed_days(found["nightly"], "nightly", days=5)
        yield found


def seed_days(server: DevServer, project: str, days: int) -> None:
    """The first and the last run of today and of days before it; runs of today are there, too."""
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    for ago in range(1, days + 1):
        begin = midnight - timedelta(days=ago)
        for name, moment in {"first": begin, "last": begin + LAST_MOMENT}.items():
            server.seed_run(
                "ann",
                project,
                f"{name}-{ago}",
                created_at=moment,
                heartbeat_at=moment,
                history=[{"loss": 3.0}],
            )


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


def runs_of_days(server: DevServer, project: str) -> dict[str, set[str]]:
    """What is on the server: the runs by the day on which they were created."""
    found: dict[str, set[str]] = {}
    for run in Api({"base_url": server.url}, api_key=KEY).runs(f"ann/{project}"):
        found.setdefault(f"{run.created_at:%Y-%m-%d}", set()).add(run.id)
    return found


def held(url: str, dataset: str) -> dict[str, str]:
    """The runs of a dataset, each with the status of its history; none before it is there."""
    with suppress(WarehouseError):
        found = connect(url).query(HELD, dataset)
        return {row["run_id"]: row["status"] for row in found.to_pylist()}
    return {}


def connection(name: str, server: DevServer) -> str:
    key = "w" * 40 if name == "refused" else KEY
    extra = {"max_wait_s": 0}
    return json.dumps({"conn_type": "wandb", "host": server.url, "password": key, "extra": extra})


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


def test_what_was_written_reaches_a_daily_consumer(
    airflow: Airflow, servers: dict[str, DevServer]
) -> None:
    """The watcher's events know no partition; the export's do: the days of the runs' creation.

    The consumer exports the day of its partition, and no run of another. Before Airflow 3.3 there
    is no such asset, and no such Dag.
    """
    if not HAS_RETRY_POLICIES:
        assert airflow.rows("select dag_id from dag where dag_id = 'daily'") == []
        return
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


def partitions(airflow: Airflow, dag_id: str) -> dict[str, str]:
    """The states of a Dag's runs, by their partition."""
    sql = "select partition_key, state from dag_run where dag_id = ? order by id"
    return {row["partition_key"]: row["state"] for row in airflow.rows(sql, dag_id)}


def told(airflow: Airflow) -> dict[str, int]:
    """The runs that were written, by the day that an event of the export has as its partition.

    The event of any asset has the partition of its Dag run; that of days has those of its own.
    """
    events = airflow.rows(
        "select a.name, e.partition_key, e.extra from asset_event e "
        "join asset a on a.id = e.asset_id where e.source_dag_id = 'nightly' order by e.id"
    )
    of_table = {e["partition_key"]: e["extra"] for e in events if e["name"] == "exported_night"}
    of_days = {e["partition_key"]: e["extra"] for e in events if e["name"] != "exported_night"}
    assert len(events) == len(of_table) + len(of_days)
    told = {key.removesuffix("T00:00:00"): extra for key, extra in of_table.items()}
    if HAS_RETRY_POLICIES:
        assert of_days == told
    return {day: json.loads(extra)["runs"] for day, extra in told.items()}


def exports(airflow: Airflow) -> list[dict[str, Any]]:
    rows = airflow.rows(
        "select e.extra from asset_event e join asset a on a.id = e.asset_id "
        "where e.source_dag_id = 'live' and a.name = 'exported_table'"
    )
    return [json.loads(row["extra"]) for row in rows]


def consumed(airflow: Airflow, run_id: str) -> list[Any]:
    """Wait until an event named the run and a consumer has run after it."""

    def find() -> list[Any]:
        events = airflow.rows(
            "select timestamp from asset_event where extra like ? and source_dag_id is null",
            f'%"{run_id}"%',
        )
        ended = [task for task in airflow.tasks("consumer") if task["state"] == "success"]
        return [t for t in ended if events and t["start_date"] > events[0]["timestamp"]]

    found: list[Any] = airflow.wait_for(find)
    return found


def test_the_key_is_in_no_file(airflow: Airflow) -> None:
    """Not in the metadata database, in no log, no lineage event and no configuration."""
    forms = (KEY.encode(), base64.b64encode(f"api:{KEY}".encode()))
    files = [path for path in airflow.folder.rglob("*") if path.is_file()]
    assert {"airflow.db", "triggerer.log", "lineage.json"} <= {path.name for path in files}
    lineage = (airflow.folder / "lineage.json").read_text()
    assert '"rowCount":' in lineage.replace(" ", "")
    assert [path for path in files if any(form in path.read_bytes() for form in forms)] == []
