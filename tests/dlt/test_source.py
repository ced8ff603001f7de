"""A project through dlt: values, names and changes arrive exactly, by SQL in the destination."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dlt
import duckdb
import pytest

from wb_ops import Api, ExportIncomplete, NotFound
from wb_ops.devserver import DevServer, Fault, Matcher, Responder
from wb_ops.dlt import wandb_source
from wb_ops.errors import find_error
from wb_ops.settings import Settings

OLD = "2026-01-01T00:00:00"
LONG_AGO = datetime(2025, 1, 1, tzinfo=UTC)

# Where dlt appends, the rows of a run's newest receipt are the live ones (docs/lake.md).
LIVE = """
    select history.* from {history} history join (
        select run_id, max(load_id) as load_id from {_wb_receipts}
        where table_name = 'history' and status in ('complete', 'growing', 'unexplained')
        group by run_id
    ) newest on newest.run_id = history.run_id and newest.load_id = history._load_id
"""


def seed(server: DevServer, run_id: str, history: list[dict[str, Any]], **fields: Any) -> None:
    moments = {"created_at": OLD, "heartbeat_at": OLD}
    server.seed_run("ann", "trials", run_id, history=history, **(moments | fields))


@pytest.fixture
def project(server: DevServer) -> DevServer:
    seed(server, "r0", [{"_step": 0, "loss": 1, "Loss": 7.5, "a/b": 1.0, "a_b": 2.0}])
    seed(server, "r1", [{"_step": step, "loss": step / 7} for step in range(20)])
    return server


def downloads(server: DevServer) -> list[str]:
    listing = {"FilterProbe", "Runs"}
    return [one for one in server.requests.operations() if one and one not in listing]


@pytest.mark.usefixtures("project")
def test_changes_arrive_and_nothing_else_is_read(
    server: DevServer, load: Callable[..., Any], ask: Callable[..., Any]
):
    load()
    names = dict(ask("select original_key, column_name from {_wb_columns} "
                     "where table_name = 'history'"))  # fmt: skip
    assert len(set(names.values())) == len(names) == 4
    columns = ", ".join(names[key] for key in ("loss", "Loss", "a/b", "a_b"))
    assert ask(f"select {columns} from {{history}} where run_id = 'r0'") == [(1.0, 7.5, 1.0, 2.0)]
    found = ask("select _step, loss from {history} where run_id = 'r1' order by 1")
    assert found == [(step, step / 7) for step in range(20)]

    server.requests.clear()
    load()
    assert downloads(server) == []

    seed(server, "r2", [{"_step": 0, "loss": 0.5}])
    load(mode="reconcile")
    assert ask("select loss from {history} where run_id = 'r2'") == [(0.5,)]
    assert len(ask(LIVE)) == 22
    statuses = ask("select distinct status from {_wb_receipts} where table_name = 'history'")
    assert statuses == [("complete",)]


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize("destination", ["filesystem"], indirect=True)
def test_where_dlt_appends_older_rows_are_no_damage(
    server: DevServer, load: Callable[..., Any], ask: Callable[..., Any]
):
    load()
    load(mode="full")
    server.requests.clear()
    load()
    assert downloads(server) == []
    assert len(ask("select * from {history}")) == 42
    live = ask(LIVE.replace("history.*", "history.run_id, _step, loss") + " order by 1, 2")
    assert live == [("r0", 0, 1.0), *[("r1", step, step / 7) for step in range(20)]]


@pytest.mark.usefixtures("project")
def test_a_lost_working_folder_costs_nothing(
    server: DevServer, load: Callable[..., Any], destination: Any, api: Api, tmp_path: Path
):
    load()
    shutil.rmtree(tmp_path / "work")
    server.requests.clear()
    anew = dlt.pipeline(
        "wandb", pipelines_dir=str(tmp_path / "work"), destination=destination, dataset_name="runs"
    )
    anew.run(wandb_source("ann", "trials", api=api))
    assert downloads(server) == []


@pytest.mark.usefixtures("project")
def test_a_load_that_was_cut_is_read_again(
    pipeline: dlt.Pipeline, load: Callable[..., Any], ask: Callable[..., Any], api: Api
):
    pipeline.extract(wandb_source("ann", "trials", api=api))
    pipeline.abort_packages()
    load()
    assert len(ask("select * from {history}")) == 21
    assert len(ask("select * from {runs}")) == 2


@pytest.mark.usefixtures("project")
def test_a_run_that_grows_is_replaced_whole(
    server: DevServer, load: Callable[..., Any], ask: Callable[..., Any]
):
    rows = [{"_step": step, "loss": 1} for step in range(4)]
    server.seed_run("ann", "trials", "live", state="running", history=rows)
    load()
    server.append_history("ann", "trials", "live", [{"_step": 4, "loss": 0.5}])
    load()
    found = [row for row in ask(LIVE + " order by history._step") if "live" in row]
    assert len(found) == 5
    assert ask("select count(*) from {history} where run_id = 'live' and loss = 0.5") == [(1,)]


@pytest.mark.slow
@pytest.mark.usefixtures("project")
@pytest.mark.parametrize("keeps_folder", [True, False])
def test_a_killed_load_and_the_next_one_make_one(
    server: DevServer, tmp_path: Path, keeps_folder: bool
):
    chance = random.Random(int(os.environ.get("WB_OPS_SEED", "1")))
    work, database = tmp_path / "work", tmp_path / "loaded.duckdb"
    command = [
        sys.executable, str(Path(__file__).with_name("load_once.py")), server.url, server.api_key,
        str(work), str(database),
    ]  # fmt: skip
    for _ in range(int(os.environ.get("WB_OPS_KILLS", "1"))):
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        time.sleep(chance.uniform(0, 4))
        child.kill()
        child.communicate()
        if not keeps_folder:
            shutil.rmtree(work, ignore_errors=True)
    subprocess.run(command, check=True, capture_output=True)
    if keeps_folder:  # the first one may only have finished what was pending
        subprocess.run(command, check=True, capture_output=True)
    with duckdb.connect(str(database)) as connection:
        found = connection.sql("select run_id, count(*), count(distinct _step), sum(loss) "
                               "from runs.history group by 1 order by 1").fetchall()  # fmt: skip
        runs = connection.sql("select run_id from runs.runs order by 1").fetchall()
    assert found == [("r0", 1, 1, 1.0), ("r1", 20, 20, pytest.approx(190 / 7))]
    assert runs == [("r0",), ("r1",)]


def test_errors_of_ours_are_found_in_what_dlt_raises(load: Callable[..., Any], server: DevServer):
    with pytest.raises(Exception, match="trials") as caught:
        load()
    assert isinstance(find_error(caught.value), NotFound)


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize("window", [{"mode": "reconcile"}, {"since": LONG_AGO}])
def test_a_run_that_is_gone_is_marked(
    server: DevServer, load: Callable[..., Any], ask: Callable[..., Any], window: dict[str, Any]
):
    seed(server, "tagged", [{"_step": 0, "loss": 0.5}], tags=["a,b", "c"], config={"lr": 1e22})
    load()
    before = ask("select config, tags, content_hash from {runs} where run_id = 'tagged'")
    server.delete_run("ann", "trials", "tagged")
    load(**window)
    newest = "select run_id, max(deleted_at) from {runs} group by 1 order by 1"
    assert [(run_id, gone is not None) for run_id, gone in ask(newest)] == [
        ("r0", False), ("r1", False), ("tagged", True)
    ]  # fmt: skip
    sql = "select config, tags, content_hash from {runs} where deleted_at is not null"
    assert ask(sql) == before


def test_what_was_read_is_loaded_before_it_fails(
    server: DevServer, pipeline: dlt.Pipeline, ask: Callable[..., Any]
):
    seed(server, "good", [{"_step": 0, "loss": 0.5}], parquet="off")
    seed(server, "short", [{"_step": 0, "loss": 0.5}])
    server.faults.add(Fault(Matcher(origin="storage"), Responder.truncated(50)))
    once = Settings(api_key=server.api_key, base_url=server.url, max_attempts=1)
    with Api(settings=once) as api:
        source = wandb_source("ann", "trials", api=api, on_incomplete="fail")
        with pytest.raises(ExportIncomplete, match="short failed"):
            pipeline.run(source)
        assert ask("select run_id from {history}") == [("good",)]
        pipeline.run(wandb_source("ann", "trials", api=api, on_incomplete="fail"))
    assert ask("select run_id from {history} order by 1") == [("good",), ("short",)]


@pytest.mark.usefixtures("project")
def test_states_and_secrets_are_those_of_a_request(
    server: DevServer, load: Callable[..., Any], ask: Callable[..., Any]
):
    token = "sk-" + "a1B2" * 12
    seed(server, "bad", [{"_step": 0, "loss": 0.5}], state="failed", config={"api_key": token})
    load(states=["failed"], redact_secrets=True)
    assert ask("select run_id from {runs}") == [("bad",)]
    assert ask("select config from {runs}") == [('{"api_key":"[redacted]"}',)]
