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
from contextlib import ExitStack, closing, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from wb_ops.devserver import ApiKey, DevServer, Fault, Matcher, Responder

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
KEY = "slowkey0" * 5
LISTING = Matcher(operation="Runs")
THROTTLE = "wb_ops.airflow.triggers.throttle.ThrottleTrigger"
WAITING = """
select ti.state, t.classpath, p.include_deferred, ti.try_number
from task_instance ti join trigger t on t.id = ti.trigger_id
join slot_pool p on p.pool = ti.pool where ti.dag_id = ?
"""
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
            "AIRFLOW__API_AUTH__JWT_SECRET": "s" * 64,
            "AIRFLOW__API__SECRET_KEY": "s" * 64,
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{self.database}",
            "WB_OPS_TEST_FOLDER": str(folder),
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

    def stop(self, name: str) -> None:
        """End a process of ours and its children: SIGINT, then what is left of its group."""
        process = self.processes.pop(name)
        os.killpg(process.pid, signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(20)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)

    def rows(self, sql: str, *values: Any) -> list[dict[str, Any]]:
        uri = f"file:{self.database}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True, timeout=30)) as connection:
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute(sql, values)]

    def tasks(self, dag_id: str) -> list[dict[str, Any]]:
        return self.rows("select * from task_instance where dag_id = ? order by start_date", dag_id)

    def wait_for(self, what: Callable[[], Any], limit_s: float = 120.0) -> Any:
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
        for name in ("limited", "refused", "deferred", "live"):
            server = DevServer(api_keys={KEY: ApiKey(username="ann")})
            found[name] = stack.enter_context(server)
            server.seed_run("ann", "demo", "run0", history=[{"loss": 1.0}, {"loss": 0.5}])
        found["limited"].faults.add(Fault(LISTING, Responder.rate_limited(12)))
        found["deferred"].faults.add(Fault(LISTING, Responder.rate_limited(8)))
        yield found


@pytest.fixture(scope="module")
def airflow(
    servers: dict[str, DevServer], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Airflow]:
    """Airflow with the Dags of scheduled_dags.py, running."""
    folder = tmp_path_factory.mktemp("airflow-deployment")
    (folder / "dags").mkdir()
    shutil.copy(DAGS, folder / "dags")
    deployment = Airflow(folder, {f"wandb_{n}": connection(n, s) for n, s in servers.items()})
    migrate = deployment.command("db", "migrate")
    subprocess.run(
        migrate, env=deployment.environment, check=True, timeout=120, capture_output=True
    )
    try:
        port = str(deployment.port)
        deployment.start("api-server", "--host", "127.0.0.1", "--port", port, "--workers", "1")
        deployment.start("dag-processor")
        deployment.start("scheduler", "--skip-serve-logs")
        deployment.start("triggerer", "--skip-serve-logs")
        yield deployment
    finally:
        for name in list(deployment.processes):
            deployment.stop(name)


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
    """429 with Retry-After: 12: Airflow is told 12 seconds, and waits them."""
    task = airflow.ended("limited")
    assert (task["state"], task["try_number"]) == ("success", 2)
    (first,) = airflow.rows("select * from task_instance_history where dag_id = 'limited'")
    assert first["retry_delay_override"] == 12.0
    assert first["retry_reason"] == "W&B 429 Retry-After=12s"
    gap = moment(task["start_date"]) - moment(first["end_date"])
    assert gap.total_seconds() >= 12


def test_a_refused_key_ends_at_the_first_try(airflow: Airflow) -> None:
    """401: three retries are there, and none is used."""
    task = airflow.ended("refused")
    assert (task["state"], task["try_number"], task["max_tries"]) == ("failed", 1, 3)
    assert airflow.rows("select * from task_instance_history where dag_id = 'refused'") == []


def test_a_finished_run_reaches_a_consumer(airflow: Airflow, servers: dict[str, DevServer]) -> None:
    """W&B, watcher, export, table, consumer; and again for what ended while no triggerer ran."""
    server = servers["live"]
    assert consumed(airflow, "run0")
    server.seed_run("ann", "demo", "run1", state="running", history=[{"loss": 2.0}])
    airflow.stop("triggerer")
    server.finish_run("ann", "demo", "run1", exit_code=0)
    airflow.start("triggerer", "--skip-serve-logs")
    assert consumed(airflow, "run1")
    extras = [extra for extra in exports(airflow) if extra["row_count"]]
    assert sum(extra["row_count"] for extra in extras) == 3
    assert all(extra["watermark"] and extra["schema_hash"] for extra in extras)


def exports(airflow: Airflow) -> list[dict[str, Any]]:
    rows = airflow.rows("select extra from asset_event where source_dag_id = 'live'")
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
    """Not in the metadata database, in no log and no configuration, after all of the above."""
    forms = (KEY.encode(), base64.b64encode(f"api:{KEY}".encode()))
    files = [path for path in airflow.folder.rglob("*") if path.is_file()]
    assert {"airflow.db", "triggerer.log"} <= {path.name for path in files}
    assert [path for path in files if any(form in path.read_bytes() for form in forms)] == []
