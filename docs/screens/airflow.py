"""Takes the pictures of docs/screens/airflow-*.png from a real browser and a real Airflow.

    python docs/screens/airflow.py

A dev server stands for W&B and answers the first listing with 429 and Retry-After: 600, so that the
grid shows a task that waits, and its log says why; then it is cleared, and the Dag goes on. Nothing
is left running. Not part of CI.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote
from urllib.request import Request, urlopen

from browser import browser_page, end, free_port, wait_for
from playwright.sync_api import Page

from wb_ops.devserver import ApiKey, DevServer, Fault, Matcher, Responder

FOLDER = Path(__file__).parent
KEY = "picture0" * 5
DAG = "wandb_training"
DAG_FILE = f'''
from datetime import datetime, timezone
from airflow.sdk import DAG, Asset
from wb_ops.airflow import (
    WandbBackfillSummaryOperator, WandbCommitExportOperator, WandbExportOperator,
    WandbExportShardOperator, WandbPlanExportOperator, WandbRunSensor,
)
TO, OF = "duckdb:///{{0}}/w.duckdb", {{"entity": "vision", "project": "digits"}}
with DAG("{DAG}", schedule="@once", start_date=datetime(2026, 1, 1, tzinfo=timezone.utc)):
    done = WandbRunSensor(task_id="wait_for_run", run="vision/digits/run0", poke_interval=5)
    plan = WandbPlanExportOperator(
        task_id="plan", warehouse=TO, staging="{{0}}/staging", runs_per_shard=2, **OF
    )
    shards = WandbExportShardOperator.partial(task_id="shard").expand(shard=plan.output)
    commit = WandbCommitExportOperator(
        task_id="commit", plan_uri=plan.plan_uri, warehouse=TO, outlets=[Asset("wandb_export")]
    )
    best = WandbBackfillSummaryOperator(
        task_id="best_val_acc", warehouse=TO, recipe='best("val_acc")', **OF
    )
    done >> plan >> shards >> commit >> best
'''


class Airflow:
    """`airflow standalone` in a folder, on a free port."""

    def __init__(self, folder: Path, server: DevServer) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.folder = folder
        connection = {"conn_type": "wandb", "host": server.url, "password": KEY}
        connection["extra"] = {"max_wait_s": 0, "entity": "vision"}
        self.environment = {
            **os.environ,
            "AIRFLOW_HOME": str(folder),
            "AIRFLOW__CORE__DAGS_FOLDER": str(folder / "dags"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__PARALLELISM": "2",
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "AIRFLOW__CORE__TEST_CONNECTION": "Enabled",
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "60",
            "AIRFLOW__API__BASE_URL": self.url,
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": str(self.port),
            "AIRFLOW__API__WORKERS": "1",
            "AIRFLOW__API__SECRET_KEY": "s" * 64,
            "AIRFLOW__API_AUTH__JWT_SECRET": "s" * 64,
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{folder}/airflow.db",
            "AIRFLOW_CONN_WANDB_DEFAULT": json.dumps(connection),
        }

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "airflow", *arguments]

    @contextmanager
    def running(self) -> Iterator[None]:
        """Start the four processes; end them, and their children, afterwards."""
        subprocess.run(
            self.command("db", "migrate"), env=self.environment, check=True, capture_output=True
        )
        port = str(self.port)
        parts = [
            ("api-server", "--host", "127.0.0.1", "--port", port, "--workers", "1"),
            ("dag-processor",),
            ("scheduler",),
            ("triggerer", "--skip-serve-logs"),
        ]
        processes = []
        try:
            for part in parts:
                processes.append(self._start(*part))
                # Tasks talk to the API server from their first moment on.
                wait_for(self._answers)
            yield
        finally:
            end(processes)

    def _answers(self) -> bool:
        with closing(socket.socket()) as client:
            return client.connect_ex(("127.0.0.1", self.port)) == 0

    def _start(self, *arguments: str) -> subprocess.Popen[bytes]:
        with (self.folder / f"{arguments[0]}.log").open("wb") as log:
            return subprocess.Popen(
                self.command(*arguments),
                env=self.environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def ask(self, path: str, **body: Any) -> dict[str, Any]:
        """An answer of the REST API; the token is free for admins here."""
        with urlopen(Request(f"{self.url}/auth/token", method="GET"), timeout=30) as answer:
            token = json.load(answer)["access_token"]
        data = json.dumps(body).encode() if body else None
        request = Request(f"{self.url}/api/v2/{path}", data=data)
        request.add_header("Authorization", f"Bearer {token}")
        request.add_header("Content-Type", "application/json")
        with urlopen(request, timeout=30) as answer:
            found: dict[str, Any] = json.load(answer)
        return found

    def tasks(self) -> dict[str, list[dict[str, Any]]]:
        """The task instances of the Dag's only run by task."""
        found: dict[str, list[dict[str, Any]]] = {}
        for one in self.ask(f"dags/{DAG}/dagRuns/~/taskInstances")["task_instances"]:
            found.setdefault(one["task_id"], []).append(one)
        return found


def seed(server: DevServer) -> None:
    """Six runs of a small project."""
    for number in range(6):
        rows = [{"_step": s, "val_acc": 1 - 0.9 ** (s + number), "loss": 0.9**s} for s in range(50)]
        server.seed_run(
            "vision", "digits", f"run{number}", config={"lr": 0.1 / (number + 1)}, history=rows
        )
    server.faults.add(Fault(Matcher(operation="Runs"), Responder.rate_limited(600)))


class Camera:
    """A page of the browser that saves what it shows."""

    def __init__(self, page: Page, airflow: Airflow) -> None:
        self.page = page
        self.airflow = airflow

    def open(self, path: str, text: str) -> None:
        """Go to a page and wait until it shows a text."""
        self.page.goto(f"{self.airflow.url}/{path}")
        self.page.get_by_text(text).first.wait_for()
        self.page.wait_for_timeout(1500)

    def shoot(self, name: str, **clip: float) -> None:
        """Save what is seen, or a part of it."""
        area: Any = {"clip": clip} if clip else {}
        self.page.screenshot(path=FOLDER / f"airflow-{name}.png", **area)
        print(f"docs/screens/airflow-{name}.png")


def connection_form(camera: Camera, server: DevServer) -> None:
    """The form of a new connection, filled in, and the answer of its Test button."""
    page = camera.page
    camera.open("connections", "Add Connection")
    page.get_by_role("button", name="Add Connection").click()
    page.locator('input[name="connection_id"]').fill("wandb_team")
    page.get_by_role("combobox").last.click()
    page.keyboard.type("wandb")
    page.keyboard.press("Enter")
    page.get_by_text("API base URL").wait_for()
    page.locator('input[name="host"]').fill(server.url)
    page.locator('input[name="password"]').fill(KEY)
    # Without a port in the database the Test button is refused: see docs/airflow.md.
    page.locator('input[name="port"]').fill("0")
    page.wait_for_timeout(800)
    camera.shoot("connection")
    # It folds the standard fields.
    page.get_by_text("Extra Fields", exact=True).click()
    page.get_by_text("Longest wait (s)").wait_for()
    page.set_viewport_size({"width": 1280, "height": 1280})
    page.wait_for_timeout(800)
    camera.shoot("fields", x=192, y=64, width=896, height=946)
    page.set_viewport_size({"width": 1280, "height": 800})
    page.get_by_role("button", name="Save").click()
    page.get_by_text("wandb_team").first.wait_for()
    with page.expect_response("**/connections/test", timeout=120_000) as answer:
        page.get_by_role("button", name="Test Connection").first.click()
    print(answer.value.request.post_data, answer.value.json())
    page.wait_for_timeout(800)
    camera.shoot("test")


def main() -> None:
    """Take all pictures."""
    # Whoever ends this script ends Airflow too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    folder = Path(tempfile.mkdtemp(prefix="wb_ops-screens-"))
    with DevServer(api_keys={KEY: ApiKey(username="ann")}) as server:
        seed(server)
        airflow = Airflow(folder, server)
        (folder / "dags").mkdir()
        (folder / "dags" / "training.py").write_text(DAG_FILE.replace("{0}", str(folder)))
        with airflow.running(), browser_page() as page:
            pictures(Camera(page, airflow), server)
    shutil.rmtree(folder)


def pictures(camera: Camera, server: DevServer) -> None:
    """In the order in which the Dag run gets there."""
    airflow = camera.airflow
    wait_for(lambda: airflow.tasks()["plan"][0]["state"] == "up_for_retry")
    run_id = airflow.tasks()["plan"][0]["dag_run_id"]
    run = quote(run_id, safe="")
    # Only what is no error: the traceback names folders of this machine.
    logs = f"dags/{DAG}/runs/{run}/tasks/plan?try_number=1&log_level=info"
    camera.open(logs, "Post Execute")
    camera.page.get_by_text("Post Execute").click()
    camera.page.get_by_text("Retry-After=600s").wait_for()
    camera.shoot("retry")
    camera.open(f"dags/{DAG}/runs/{run}/tasks/plan/xcom", "retry_reason")
    camera.shoot("reason")
    asked = {"dag_run_id": run_id, "task_ids": ["plan"], "only_failed": False, "dry_run": False}
    airflow.ask(f"dags/{DAG}/clearTaskInstances", **asked)
    connection_form(camera, server)
    wait_for(lambda: airflow.tasks()["best_val_acc"][0]["state"] == "success")
    camera.open(f"dags/{DAG}/runs/{run}/tasks/commit/details", "Load report")
    camera.shoot("links")


if __name__ == "__main__":
    main()
