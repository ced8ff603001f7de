"""A real daemon: the sensor fires once a run, a wait frees the slot, a refusal is not repeated."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pytest

from wb_ops.devserver import ApiKey, DevServer, Fault, Matcher, Responder

pytestmark = [pytest.mark.slow, pytest.mark.timeout(280)]

ROOT = Path(__file__).parents[2]
KEY = "canary" * 8
PATIENCE_S = 200


@pytest.fixture
def servers() -> Iterator[dict[str, DevServer]]:
    keys = {KEY: ApiKey(username="ann")}
    with (
        DevServer(api_keys=keys) as demo,
        DevServer(api_keys=keys) as refusing,
        DevServer(api_keys=keys) as limiting,
    ):
        found = {"demo": demo, "refused": refusing, "limited": limiting}
        for project, server in found.items():
            for run_id in ("first", "second"):
                server.seed_run("ann", project, run_id, history=[{"_step": 0, "loss": 1.0}])
        # Longer than a launch takes on a busy machine: the other step has to fit into it.
        limit = Fault(Matcher(operation="Runs"), Responder.rate_limited(45), times=1)
        limiting.faults.add(limit)
        yield found


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path / "home"
    home.mkdir()
    shutil.copy(ROOT / "dagster_defs" / "dagster.yaml", home)
    return home


@pytest.fixture
def instance(home: Path, servers: dict[str, DevServer]) -> Iterator[dg.DagsterInstance]:
    """The instance of a daemon that runs until the test ends."""
    env = {
        **os.environ,
        "DAGSTER_HOME": str(home),
        "DAGSTER_DISABLE_TELEMETRY": "true",
        "PYTHONPATH": str(ROOT),
        "WANDB_API_KEY": KEY,
        "TEST_FOLDER": str(home.parent),
        "TEST_SERVER": servers["demo"].url,
        "TEST_REFUSING": servers["refused"].url,
        "TEST_LIMITING": servers["limited"].url,
    }
    command = [str(Path(sys.executable).parent / "dagster-daemon"), "run"]
    project = ["-f", str(Path(__file__).with_name("daemon_project.py"))]
    with (home.parent / "daemon.log").open("wb") as log:
        daemon = subprocess.Popen(
            command + project, env=env, cwd=home, stdout=log, stderr=log, start_new_session=True
        )
    try:
        with dg.DagsterInstance.from_config(str(home)) as instance:
            yield instance
    finally:
        daemon.send_signal(signal.SIGINT)
        try:
            daemon.wait(20)
        except subprocess.TimeoutExpired:
            # Its own session: the daemon, its code server, and the runs these have started.
            os.killpg(daemon.pid, signal.SIGKILL)
            daemon.wait(10)


def until(holds: Callable[[], bool], home: Path) -> None:
    for _ in range(PATIENCE_S):
        if holds():
            return
        time.sleep(1)
    pytest.fail((home.parent / "daemon.log").read_text()[-3000:])


def of_job(instance: dg.DagsterInstance, name: str) -> list[dg.DagsterRun]:
    return list(instance.get_runs(dg.RunsFilter(job_name=f"{name}_job")))


def exported(instance: dg.DagsterInstance) -> list[str]:
    """The W&B runs for which the sensor has launched."""
    runs = instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.SUCCESS]))
    return sorted(run.tags["wandb/run_id"] for run in runs if "wandb/run_id" in run.tags)


def moments(instance: dg.DagsterInstance, job: str, kind: dg.DagsterEventType) -> list[float]:
    (run,) = of_job(instance, job)
    return [
        entry.timestamp
        for entry in instance.all_logs(run.run_id)
        if entry.dagster_event is not None and entry.dagster_event.event_type is kind
    ]


def has_succeeded(instance: dg.DagsterInstance, job: str) -> bool:
    return [run.status for run in of_job(instance, job)] == [dg.DagsterRunStatus.SUCCESS]


def test_the_daemon_does_what_the_assets_and_the_sensor_ask_for(instance, servers, home):
    until(lambda: exported(instance) == ["first", "second"], home)
    assert instance.get_dynamic_partitions("ann__demo__run_ids") == ["first", "second"]
    servers["demo"].seed_run("ann", "demo", "third", history=[{"_step": 0, "loss": 1.0}])
    until(lambda: exported(instance) == ["first", "second", "third"], home)
    assert instance.has_dynamic_partition("ann__demo__run_ids", "third")

    until(lambda: has_succeeded(instance, "limited"), home)
    assert has_succeeded(instance, "meanwhile")
    kinds = dg.DagsterEventType
    (waits,) = moments(instance, "limited", kinds.STEP_UP_FOR_RETRY)
    (meanwhile,) = moments(instance, "meanwhile", kinds.STEP_SUCCESS)
    (again,) = moments(instance, "limited", kinds.STEP_RESTARTED)
    assert waits < meanwhile < again

    (refused,) = of_job(instance, "refused")
    assert refused.status is dg.DagsterRunStatus.FAILURE
    assert refused.tags["dagster/will_retry"] == "false"
    assert len(servers["refused"].requests) == 1

    # Nothing was launched twice, whatever came in between.
    assert exported(instance) == ["first", "second", "third"]
    stored = b"".join(path.read_bytes() for path in home.rglob("*") if path.is_file())
    assert b"ann__demo" in stored
    assert KEY.encode() not in stored
