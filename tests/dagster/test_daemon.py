"""One real `dagster dev` with its daemon, asked for everything as its UI asks."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import requests

from wb_ops import Api, ExportRequest, Warehouse, connect, execute_export, plan_export
from wb_ops.devserver import ApiKey, DevServer, Fault, Matcher, Responder

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
PROJECT = Path(__file__).with_name("daemon_project.py")
KEY = "canary" * 8
# Given to the location as it stands: to our resource, and to one that Dagster keeps as it is.
LITERAL, CARELESS = "parrot" * 8, "magpie" * 8
# Far more than it takes: other tests may have the machine too.
PATIENCE_S = 500
TODAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
LATE = f"{TODAY - timedelta(days=10):%Y-%m-%d}"
HISTORY = [{"_step": step, "loss": 1 / (step + 1)} for step in range(4)]
PLACE = {"repositoryLocationName": PROJECT.name, "repositoryName": "__repository__"}


@dataclass(frozen=True)
class Dev:
    """A running `dagster dev`, its instance, and the W&B servers of its projects."""

    url: str
    folder: Path
    instance: dg.DagsterInstance
    servers: dict[str, DevServer]

    def ask(self, document: str, **variables: Any) -> Any:
        body = {"query": document, "variables": variables}
        answer = requests.post(f"{self.url}/graphql", json=body, timeout=60).json()
        assert "errors" not in answer, answer["errors"]
        return answer["data"]

    def launch(self, job: str) -> None:
        mutation = """mutation($params: ExecutionParams!) {
            launchRun(executionParams: $params) { __typename } }"""
        chosen = {"selector": {**PLACE, "jobName": job}, "runConfigData": {}}
        launched = self.ask(mutation, params=chosen)["launchRun"]
        assert launched == {"__typename": "LaunchRunSuccess"}

    def runs(self, **chosen: Any) -> list[dg.DagsterRun]:
        """The newest first."""
        return list(self.instance.get_runs(dg.RunsFilter(**chosen)))

    def until(self, holds: Callable[[], bool]) -> None:
        for _ in range(PATIENCE_S):
            if holds():
                return
            time.sleep(1)
        pytest.fail((self.folder / "dev.log").read_text()[-3000:])

    def until_success(self, times: int = 1, **chosen: Any) -> dg.DagsterRun:
        """Wait for so many runs that succeeded; returns the newest."""
        wanted = {**chosen, "statuses": [dg.DagsterRunStatus.SUCCESS]}
        self.until(lambda: len(self.runs(**wanted)) >= times)
        return self.runs(**wanted)[0]

    def launched(self) -> list[str]:
        """The W&B runs for which the sensor has launched, once for each launch, however it went."""
        return sorted(run.tags["wandb/run_id"] for run in self.runs() if "wandb/run_id" in run.tags)

    def kept(self) -> str:
        """All that Dagster keeps: its files as they are, and what they hold packed."""
        texts = [
            path.read_bytes().decode("latin-1") for path in self.folder.rglob("*") if path.is_file()
        ]
        for run in self.runs():
            texts += [
                repr(run),
                repr(self.instance.get_job_snapshot(run.job_snapshot_id)),
                repr(self.instance.get_execution_plan_snapshot(run.execution_plan_snapshot_id)),
                repr(self.instance.all_logs(run.run_id)),
            ]
        return "\n".join(texts)

    def records(self, table: str) -> list[dg.EventLogRecord]:
        """The materializations of a table of the daily project."""
        key = dg.AssetKey(["ann__daily", table])
        return list(self.instance.fetch_materializations(key, limit=1000).records)

    def days(self, table: str, after: int) -> set[str]:
        """The days that were materialized after the record of this id."""
        return {one.partition_key for one in self.records(table) if one.storage_id > after}


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, DevServer]]:
    names = ("demo", "daily", "refused", "limited", "killed")
    with ExitStack() as stack:
        running = {
            name: stack.enter_context(DevServer(api_keys={KEY: ApiKey(username="ann")}))
            for name in names
        }
        for name in ("demo", "refused", "limited"):
            running[name].seed_run("ann", name, "first", history=HISTORY)
        seed_30_days(running["daily"])
        # The first request of the export, then that of the observation.
        limit = Fault(Matcher(operation="Runs"), Responder.rate_limited(20), times=2)
        running["limited"].faults.add(limit)
        for number in range(3):
            running["killed"].seed_run("ann", "killed", f"r{number}", history=HISTORY)
        stuck = Fault(Matcher(path="/exports/*", nth=2), Responder.slow(PATIENCE_S), times=1)
        running["killed"].faults.add(stuck)
        yield running


def seed_30_days(server: DevServer) -> None:
    for ago in range(1, 31):
        created = TODAY - timedelta(days=ago) + timedelta(hours=12)
        for number in range(ago % 3):
            server.seed_run("ann", "daily", f"r{ago}-{number}", created_at=created, history=HISTORY)


@pytest.fixture(scope="module")
def dev(servers: dict[str, DevServer], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dev]:
    folder = tmp_path_factory.mktemp("dev")
    home = folder / "home"
    home.mkdir()
    shutil.copy(ROOT / "dagster_defs" / "dagster.yaml", home)
    port = free_port()
    env = {
        **os.environ,
        "DAGSTER_HOME": str(home),
        "DAGSTER_DISABLE_TELEMETRY": "true",
        # The daemon that runs failed runs again passes over one whose failure it reads before
        # the run's record says so (Dagster 1.13): a second or more where all is busy. It looks
        # every five seconds, and so would meet that moment often.
        "DAGSTER_EVENT_LOG_CONSUMER_DAEMON_INTERVAL_SECONDS": "30",
        "PYTHONPATH": str(ROOT),
        "WANDB_API_KEY": KEY,
        "TEST_LITERAL": LITERAL,
        "TEST_CARELESS": CARELESS,
        "TEST_FOLDER": str(folder),
        "TEST_TODAY": TODAY.isoformat(),
        **{f"TEST_{name.upper()}": server.url for name, server in servers.items()},
    }
    # First: two processes that make the database at once get in each other's way.
    with dg.DagsterInstance.from_config(str(home)) as instance:
        dev = Dev(f"http://127.0.0.1:{port}", folder, instance, servers)
        with dagster_dev(env, folder, port):
            dev.until(lambda: is_up(dev))
            for job in ("observe", "killed", "limited", "refused"):
                dev.launch(job)
            yield dev


@contextmanager
def dagster_dev(env: dict[str, str], folder: Path, port: int) -> Iterator[None]:
    command = [str(Path(sys.executable).parent / "dagster"), "dev", "-f", str(PROJECT)]
    with (folder / "dev.log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "-h", "127.0.0.1", "-p", str(port)],
            env=env, cwd=folder, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    try:
        yield
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            # Its own session: web server, daemon, code server, and the runs these have started.
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def is_up(dev: Dev) -> bool:
    document = """{ workspaceOrError { ... on Workspace {
        locationEntries { loadStatus locationOrLoadError { __typename } } } } }"""
    try:
        (entry,) = dev.ask(document)["workspaceOrError"]["locationEntries"]
    except (requests.RequestException, ValueError):
        return False
    if entry["loadStatus"] != "LOADED":
        return False
    assert entry["locationOrLoadError"]["__typename"] == "RepositoryLocation"
    return True


@pytest.fixture(scope="module")
def range_run(dev: Dev) -> dg.DagsterRun:
    """The run of a backfill of all 30 days, after their versions were observed."""
    dev.until_success(job_name="observe")
    mutation = """mutation($params: LaunchBackfillParams!) {
        launchPartitionBackfill(backfillParams: $params) {
            ... on LaunchBackfillSuccess { backfillId } } }"""
    backfill = {
        "assetSelection": [{"path": ["ann__daily", table]} for table in ("runs", "history")],
        "partitionNames": [f"{TODAY - timedelta(days=ago):%Y-%m-%d}" for ago in range(30, 0, -1)],
    }
    asked = dev.ask(mutation, params=backfill)["launchPartitionBackfill"]
    return dev.until_success(tags={"dagster/backfill": asked["backfillId"]})


def test_a_killed_worker_is_noticed_and_the_run_is_executed_again_to_the_same_tables(
    dev: Dev, tmp_path: Path
):
    (killed,) = dev.runs(job_name="killed")
    # The fault is spent: the worker waits for its second history.
    dev.until(lambda: not dev.servers["killed"].faults.list_faults())
    os.kill(worker_of(dev, killed), signal.SIGKILL)
    again = dev.until_success(tags={"dagster/parent_run_id": killed.run_id})
    assert dev.runs(run_ids=[killed.run_id])[0].status is dg.DagsterRunStatus.FAILURE
    assert again.tags["dagster/retry_number"] == "1"
    whole = connect(f"duckdb:///{tmp_path / 'whole.duckdb'}")
    with Api({"base_url": dev.servers["killed"].url}, api_key=KEY) as api:
        request = ExportRequest("ann", "killed")
        execute_export(plan_export(request, api, whole), api, whole)
    mended = connect(f"duckdb:///{dev.folder / 'killed.duckdb'}")
    assert tables(mended) == tables(whole)
    assert [len(rows) for rows in tables(mended)] == [3, 3 * len(HISTORY)]


def worker_of(dev: Dev, run: dg.DagsterRun) -> int:
    """The process that Dagster says has been started for a run."""
    said = (str(one.message) for one in dev.instance.all_logs(run.run_id))
    (pid,) = [found[1] for one in said if (found := re.search(r"for run \(pid: (\d+)\)", one))]
    return int(pid)


def tables(warehouse: Warehouse) -> list[list[dict[str, Any]]]:
    """What a load says of runs and histories, but for the load's own id."""
    sql = "select * exclude (_load_id) from {} order by all"
    return [
        warehouse.query(sql.format(table), "ann__killed").to_pylist()
        for table in ("runs", "history")
    ]


@pytest.fixture(scope="module")
def before_later(dev: Dev) -> list[str]:
    """Two runs have ended one after the other and are exported; the launches before the second."""
    dev.until_success(tags={"wandb/run_id": "first"})
    launched = dev.launched()
    dev.servers["demo"].seed_run("ann", "demo", "later", history=HISTORY)
    dev.until_success(tags={"wandb/run_id": "later"})
    return launched


def test_the_sensor_fires_once_for_each_run_that_ends_and_partitions_appear(
    dev: Dev, before_later: list[str]
):
    assert before_later == ["first"]
    assert dev.launched() == ["first", "later"]
    assert dev.instance.get_dynamic_partitions("ann__demo__run_ids") == ["first", "later"]


def test_a_range_of_30_days_is_one_run_with_the_metadata_of_each_day(
    dev: Dev, range_run: dg.DagsterRun
):
    backfill = range_run.tags["dagster/backfill"]
    assert len(dev.runs(tags={"dagster/backfill": backfill})) == 1
    for table, rows in (("runs", 1), ("history", len(HISTORY))):
        counts = {
            one.partition_key: one.asset_materialization.metadata[
                "dagster/partition_row_count"
            ].value
            for one in dev.records(table)
        }
        assert counts == {
            f"{TODAY - timedelta(days=ago):%Y-%m-%d}": rows * (ago % 3) for ago in range(1, 31)
        }


def test_a_late_edit_materializes_its_day_again_and_no_other(dev: Dev, range_run: dg.DagsterRun):
    sensor = {**PLACE, "sensorName": "late_data"}
    start = "mutation($it: SensorSelector!) { startSensor(sensorSelector: $it) { __typename } }"
    ticks = """query($it: SensorSelector!) { sensorOrError(sensorSelector: $it) {
        ... on Sensor { sensorState { ticks(statuses: [SKIPPED]) { id } } } } }"""
    assert dev.ask(start, it=sensor)["startSensor"]["__typename"] == "Sensor"
    dev.until(lambda: bool(dev.ask(ticks, it=sensor)["sensorOrError"]["sensorState"]["ticks"]))

    before = max(one.storage_id for table in ("runs", "history") for one in dev.records(table))
    dev.servers["daily"].edit_run("ann", "daily", "r10-0", summary={"loss": 0.125})
    dev.launch("observe")
    dev.until_success(2, job_name="observe")
    dev.until(lambda: bool(dev.days("runs", before) and dev.days("history", before)))
    assert dev.days("runs", before) == dev.days("history", before) == {LATE}
    warehouse = connect(f"duckdb:///{dev.folder / 'daily.duckdb'}")
    sql = "select summary->>'loss' as loss from runs where run_id = 'r10-0'"
    assert warehouse.query(sql, "ann__daily").to_pylist() == [{"loss": "0.125"}]


@pytest.mark.parametrize("step", ["ann__limited_export", "ann__limited__changes"])
def test_a_429_is_waited_for_while_another_step_has_the_slot(dev: Dev, step: str):
    run = dev.until_success(job_name="limited")
    kinds = dg.DagsterEventType
    (waits,) = events(dev, run, kinds.STEP_UP_FOR_RETRY, step)
    (again,) = events(dev, run, kinds.STEP_RESTARTED, step)
    assert 20 <= waits.dagster_event.step_retry_data.seconds_to_wait <= 22
    assert again.timestamp - waits.timestamp >= 20
    taken = [one for one in events(dev, run, kinds.STEP_WORKER_STARTING) if one.step_key != step]
    assert [one for one in taken if waits.timestamp < one.timestamp < again.timestamp]


def test_an_observation_takes_the_slot_of_its_pool(dev: Dev):
    run = dev.until_success(job_name="limited")
    kinds = dg.DagsterEventType
    (waits,) = events(dev, run, kinds.STEP_UP_FOR_RETRY, "ann__limited__changes")
    (export_waits,) = events(dev, run, kinds.STEP_UP_FOR_RETRY, "ann__limited_export")
    first, *_again = events(dev, run, kinds.STEP_WORKER_STARTING, "ann__limited__changes")
    (meanwhile,) = events(dev, run, kinds.STEP_WORKER_STARTING, "meanwhile")
    assert export_waits.timestamp < first.timestamp
    assert waits.timestamp < meanwhile.timestamp


def events(
    dev: Dev, run: dg.DagsterRun, kind: dg.DagsterEventType, step: str | None = None
) -> list[dg.EventLogEntry]:
    """What happened in a run, to one step or to all."""
    happened = dev.instance.all_logs(run.run_id, of_type=kind)
    return [one for one in happened if step in (None, one.step_key)]


def test_a_401_is_tried_once_and_the_run_is_not_run_again(dev: Dev):
    dev.until(lambda: dev.runs(job_name="refused")[0].is_finished)
    (refused,) = dev.runs(job_name="refused")
    assert refused.status is dg.DagsterRunStatus.FAILURE
    assert refused.tags["dagster/will_retry"] == "false"
    assert len(dev.servers["refused"].requests) == 1


def test_nothing_was_launched_twice_and_the_key_is_nowhere(dev: Dev, before_later: list[str]):
    dev.until(lambda: dev.runs(job_name="refused")[0].is_finished)
    dev.until_success(job_name="limited")
    assert dev.launched() == ["first", "later"]
    assert len(dev.runs(job_name="refused")) == 1
    kept = dev.kept()
    assert "ann__demo" in kept
    assert CARELESS in kept, "the search would not find a key that Dagster keeps"
    assert LITERAL not in kept
    assert KEY not in kept
