"""Two loads into one dataset at the same time: one is told, and the next one puts it right."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import dlt
import pytest
from held_file import held

from wb_ops import Api, ExportIncomplete, InvalidRequest, WarehouseBusy, WarehouseRefused
from wb_ops.devserver import DevServer
from wb_ops.dlt import wandb_source
from wb_ops.errors import find_error

Ask = Callable[[str], list[tuple[Any, ...]]]
Load = Callable[..., Any]
Downloads = Callable[[], list[str]]
OLD = "2026-01-01T00:00:00"
RUNS = 8
EVERYTHING = ("runs", "history", "system_metrics")
# What two loads can leave behind, each of runs of its own; no receipt says so.
LOST = [
    "delete from {history} where run_id = 'r1' and _step > 3",
    "delete from {runs_flat} where run_id = 'r0'",
    # Nothing is left but what was given, and a watermark beyond it.
    *(
        f"delete from {{{table}}} where run_id = 'r5'"
        for table in ("runs", "runs_flat", "history", "_wb_receipts")
    ),
    "update {_wb_state} set watermark = now(), reconciled_at = now() + interval 1 hour",
]
DOUBLED = [
    "insert into {history} select * from {history} where run_id = 'r2'",
    "insert into {runs} select * replace ('1' as _load_id) from {runs} where run_id = 'r3'",
    "insert into {_wb_receipts} select * from {_wb_receipts} where run_id = 'r6'",
    "insert into {_wb_state} select * from {_wb_state}",
    "insert into {_wb_columns} select * replace (now() as first_seen) from {_wb_columns}",
    "insert into {_wb_rows} select * from {_wb_rows}",
]
SET_BACK = ["update {history} set _load_id = '1', loss = 0 where run_id = 'r4'"]
# As docs/lake.md says.
SHRINK = """
    delete from {_wb_rows} where (run_id, table_name, load_id) not in (
        select run_id, table_name, load_id from (
            select run_id, table_name, load_id, row_number() over (
                partition by run_id, table_name order by load_number desc, load_id desc
            ) as place from {_wb_rows}
            where load_id in (select load_id from {_dlt_loads} where status = 0)
        ) newest where place = 1
    )
"""
NOT_COUNTED = ["delete from {_wb_rows} where run_id = 'r7'"]


def seed(server: DevServer, run_id: str, history: list[dict[str, Any]], **fields: Any) -> None:
    moments = {"created_at": OLD, "heartbeat_at": OLD}
    server.seed_run("ann", "trials", run_id, history=history, **(moments | fields))


@pytest.fixture
def project(server: DevServer) -> DevServer:
    for number in range(RUNS):
        rows = [{"_step": step, "loss": step / 7 + number} for step in range(50)]
        seed(server, f"r{number}", rows, config={"lr": number / 10})
    return server


@pytest.fixture
def destination(tmp_path: Path) -> Any:
    return dlt.destinations.duckdb(str(tmp_path / "loaded.duckdb"))


def harm(ask: Ask, statements: Sequence[str]) -> None:
    for sql in statements:
        ask(sql)


def assert_equals_the_server(ask: Ask) -> None:
    history = ask("select run_id, _step, loss from {history} order by 1, 2")
    assert history == [(f"r{n}", step, step / 7 + n) for n in range(RUNS) for step in range(50)]
    runs = ask("select run_id from {runs} order by 1")
    assert runs == [(f"r{n}",) for n in range(RUNS)]
    flat = ask("select run_id, config__lr from {runs_flat} order by 1")
    assert flat == [(f"r{n}", n / 10) for n in range(RUNS)]
    receipts = ask("select run_id, status from {_wb_receipts} order by 1")
    assert receipts == [(f"r{n}", "complete") for n in range(RUNS) for _ in ("runs", "history")]


@pytest.mark.usefixtures("project")
def test_what_is_hurt_is_read_again_and_nothing_else(
    load: Load, ask: Ask, server: DevServer, downloads: Downloads
):
    load()
    assert_equals_the_server(ask)
    harm(ask, [*LOST, *DOUBLED, *SET_BACK, *NOT_COUNTED])
    load()
    assert_equals_the_server(ask)
    # Of r0 only the row, of r3 too: their histories are those of the first load.
    kept = "select distinct run_id from {history} where _load_id = (select min(load_id) from "
    assert ask(kept + "{_wb_loads}) order by 1") == [("r0",), ("r3",)]
    counted = "select table_name, row_count from {_wb_rows} where run_id = 'r7' order by 1"
    assert ask(counted) == [("history", 50), ("runs", 1), ("runs_flat", 1)]
    assert ask("select count(*) from {_wb_state}") == [(1,)]
    ask(SHRINK)
    server.requests.clear()
    load()
    assert downloads() == []


@pytest.mark.usefixtures("project")
def test_keys_and_tables_survive_and_scopes_take_turns(
    load: Load, ask: Ask, server: DevServer, caplog: pytest.LogCaptureFixture, downloads: Downloads
):
    events = [{"_timestamp": 1.0 * at, "system.cpu": at / 7} for at in range(3)]
    seed(server, "two", [{"_step": 0, "loss": 1.0, "acc": 0.5}], events=events)
    wide: dict[str, Any] = {"keys": ["loss", "acc"], "tables": EVERYTHING}
    narrow = {"keys": ["loss"], "filters": {"state": "finished"}}
    load(**wide)
    harm(ask, ["delete from {history} where run_id = 'two'"])
    harm(ask, ["insert into {system_metrics} select * from {system_metrics}"])
    load(**narrow)
    assert ask("select loss, acc from {history} where run_id = 'two'") == [(1.0, 0.5)]
    assert len(ask("select * from {system_metrics}")) == 6  # was not asked for
    load(**wide)
    assert len(ask("select * from {system_metrics}")) == 3
    server.requests.clear()
    caplog.clear()
    load(**narrow)
    load(**wide)
    assert downloads() == []
    assert not [record for record in caplog.records if record.name == "wb_ops"]
    modes = ask("select mode from {_wb_loads} order by load_id")
    assert modes == [("reconcile",), ("reconcile",), *[("incremental",)] * 3]


def test_a_run_that_is_gone_is_marked_once_and_not_asked_for(
    load: Load, ask: Ask, server: DevServer, caplog: pytest.LogCaptureFixture, downloads: Downloads
):
    for run_id in ("gone", "stays"):
        seed(server, run_id, [{"_step": 0, "loss": 0.5}])
    load()
    server.delete_run("ann", "trials", "gone")
    load(mode="reconcile")
    harm(ask, ["insert into {runs} select * from {runs} where run_id = 'gone'"])
    harm(ask, ["insert into {_wb_receipts} select * from {_wb_receipts} where run_id = 'gone'"])
    server.requests.clear()
    load(mode="reconcile")
    assert downloads() == []
    found = ask("select run_id, deleted_at is not null from {runs} order by 1")
    assert found == [("gone", True), ("stays", False)]
    assert ask("select count(*) from {_wb_receipts} where run_id = 'gone'") == [(2,)]
    harm(ask, ["delete from {_wb_receipts} where run_id = 'gone' and table_name = 'history'"])
    caplog.clear()
    load()
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.usefixtures("project")
def test_a_load_that_another_one_overtook_is_told(
    pipeline: dlt.Pipeline, load: Load, ask: Ask, server: DevServer, destination: Any, api: Api,
    hasty: Api, tmp_path: Path,
):  # fmt: skip
    seed(server, "short", [{"_step": 0, "loss": 0.5}])
    other = dlt.pipeline(
        "other", pipelines_dir=str(tmp_path / "other"), destination=destination, dataset_name="runs"
    )
    pipeline.extract(wandb_source("ann", "trials", api=hasty, on_incomplete="fail"))
    pipeline.normalize()
    seed(server, "later", [{"_step": 0, "loss": 0.25}])
    other.run(wandb_source("ann", "trials", api=api))
    with pytest.raises(WarehouseBusy, match=r"Rows of 9 runs .* 4 more.*same time") as caught:
        pipeline.load()
    assert caught.value.advice.retryable
    assert isinstance(caught.value.__context__, ExportIncomplete)
    assert "load" not in vars(pipeline)
    assert load() is not None
    wanted = [("later", 1), *[(f"r{n}", 50) for n in range(RUNS)], ("short", 1)]
    assert ask("select run_id, count(*) from {history} group by 1 order by 1") == wanted


@pytest.mark.usefixtures("project")
def test_a_load_that_fails_is_told_of_once(
    pipeline: dlt.Pipeline, load: Load, ask: Ask, api: Api, tmp_path: Path
):
    pipeline.extract(wandb_source("ann", "trials", api=api))
    pipeline.normalize()
    with held(tmp_path / "loaded.duckdb"), pytest.raises(Exception, match="lock"):
        pipeline.load()
    load()  # what is pending
    assert "load" not in vars(pipeline)
    load()
    assert_equals_the_server(ask)


@pytest.mark.usefixtures("project")
def test_what_cannot_be_put_right_is_refused(
    pipeline: dlt.Pipeline, load: Load, ask: Ask, api: Api
):
    two = [wandb_source("ann", "trials", api=api) for _ in range(2)]
    with pytest.raises(Exception, match=r"pipeline\.run of its own") as second:
        pipeline.run(two)
    assert isinstance(find_error(second.value), InvalidRequest)
    load()
    assert_equals_the_server(ask)
    ask("insert into {_wb_columns} select * replace ('a.loss' as original_key) "
        "from {_wb_columns} where original_key = 'loss'")  # fmt: skip
    with pytest.raises(Exception, match=r"'loss'.*'a.loss'.*new dataset") as column:
        load()
    assert isinstance(find_error(column.value), WarehouseRefused)


@pytest.mark.slow
@pytest.mark.usefixtures("project")
def test_two_processes_at_once_and_a_load_after_them(
    server: DevServer, api: Api, tmp_path: Path, new_database: Callable[[], str]
):
    url = urlsplit(new_database())
    socket = quote(parse_qs(url.query)["host"][0], safe="")
    database = f"postgresql://{url.username}:none@{socket}:5432{url.path}"
    pipeline = dlt.pipeline(
        "wandb", pipelines_dir=str(tmp_path / "after"), dataset_name="runs",
        destination=dlt.destinations.postgres(database),
    )  # fmt: skip
    pipeline.run(wandb_source("ann", "trials", api=api))

    def ask(sql: str) -> list[tuple[Any, ...]]:
        with pipeline.sql_client() as client:
            names = {name: f"runs.{name}" for name in pipeline.default_schema.tables}
            with client.execute_query(sql.format(**names)) as cursor:
                return [tuple(row) for row in cursor.fetchall()]

    script = str(Path(__file__).with_name("load_when_told.py"))
    writers = [
        subprocess.Popen(
            [sys.executable, script, server.url, server.api_key, str(tmp_path / name), database],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for name in "ab"
    ]  # fmt: skip
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    told = [writer.communicate(timeout=100)[0] for writer in writers]
    assert [writer.returncode for writer in writers] == [0, 0], told
    assert ask("select status from {_dlt_loads}") == [(0,)] * 3
    *_, first, last = ask("select extract(epoch from inserted_at) from {_dlt_loads} order by 1")
    spans = sorted(tuple(map(float, said.split("span ")[1].split())) for said in told)
    overlapped = spans[1][0] < float(first[0]) < float(last[0]) <= max(end for _, end in spans)
    rows = ask("select run_id, _step, loss from {history} order by 1, 2")
    is_hurt = rows != [(f"r{n}", step, step / 7 + n) for n in range(RUNS) for step in range(50)]
    is_told = any("busy" in said for said in told)
    print("overlapped", overlapped, "hurt", is_hurt, "told", is_told, "rows", len(rows), told)
    assert overlapped or not is_hurt
    assert is_told or not is_hurt
    pipeline.run(wandb_source("ann", "trials", api=api))
    assert_equals_the_server(ask)
