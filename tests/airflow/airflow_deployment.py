"""An Airflow deployment in a folder: scheduler, triggerer, API server and their database."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import closing, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest


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
