"""Two loads into one dataset at the same time: the next one puts right what they did."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import dlt
import pytest

from wb_ops import Api, WarehouseRefused
from wb_ops.devserver import DevServer
from wb_ops.dlt import wandb_source
from wb_ops.errors import find_error

Ask = Callable[[str], list[tuple[Any, ...]]]
Load = Callable[..., Any]
OLD = "2026-01-01T00:00:00"
RUNS = 8
# One more than the columns of history: some go into history_long.
WIDE = {f"m{n:04}": n / 7 for n in range(1001)}

# What two loads can leave behind, each of a run of its own; no receipt says so.
HARM = [
    # Truncated between staging and merge.
    "delete from {history} where run_id = 'r1' and _step > 3",
    "delete from {history_long} where run_id = 'wide'",
    "delete from {runs_flat} where run_id = 'r0'",
    # Staged twice, or merged by both at once.
    "insert into {history} select * from {history} where run_id = 'r2'",
    "insert into {runs} select * replace ('another' as _load_id) from {runs} where run_id = 'r3'",
    # The older load came later.
    "update {history} set _load_id = '1', loss = 0 where run_id = 'r4'",
    "delete from {_wb_rows} where run_id = 'r6'",
    # Nothing is left of a run but a watermark beyond it.
    *(
        f"delete from {{{table}}} where run_id = 'r5'"
        for table in ("runs", "runs_flat", "history", "_wb_receipts", "_wb_rows")
    ),
    "update {_wb_state} set watermark = now(), reconciled_at = now() + interval 1 hour",
]


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


def assert_equals_the_server(ask: Ask) -> None:
    history = ask("select run_id, _step, loss from {history} where run_id <> 'wide' order by 1, 2")
    assert history == [(f"r{n}", step, step / 7 + n) for n in range(RUNS) for step in range(50)]
    runs = ask("select run_id from {runs} where run_id <> 'wide' order by 1")
    assert runs == [(f"r{n}",) for n in range(RUNS)]
    flat = ask("select run_id, config__lr from {runs_flat} where run_id <> 'wide' order by 1")
    assert flat == [(f"r{n}", n / 10) for n in range(RUNS)]
    receipts = ask("select run_id, status from {_wb_receipts} where run_id <> 'wide' order by 1")
    assert receipts == [(f"r{n}", "complete") for n in range(RUNS) for _ in ("runs", "history")]


@pytest.mark.usefixtures("project")
def test_what_a_finished_load_has_lost_is_read_again(load: Load, ask: Ask, server: DevServer):
    seed(server, "wide", [{"_step": 0, **WIDE}])
    load()
    assert_equals_the_server(ask)
    long = ask("select key, value from {history_long}")
    assert [value for _, value in long] == [WIDE[key] for key, _ in long] != []
    for sql in HARM:
        ask(sql)
    load()
    assert_equals_the_server(ask)
    assert ask("select key, value from {history_long}") == long
    server.requests.clear()
    load()
    assert {name for name in server.requests.operations() if name} <= {"FilterProbe", "Runs"}


@pytest.mark.usefixtures("project")
def test_a_column_of_two_metrics_is_refused(load: Load, ask: Ask):
    load()
    ask("insert into {_wb_columns} select * replace ('a.loss' as original_key) "
        "from {_wb_columns} where original_key = 'loss'")  # fmt: skip
    with pytest.raises(Exception, match="new dataset") as caught:
        load()
    assert isinstance(find_error(caught.value), WarehouseRefused)


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
    script = str(Path(__file__).with_name("load_when_told.py"))
    writers = [
        subprocess.Popen(
            [sys.executable, script, server.url, server.api_key, str(tmp_path / name), database],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
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
    for writer in writers:
        writer.communicate(timeout=100)
    pipeline.run(wandb_source("ann", "trials", api=api))

    def ask(sql: str) -> list[tuple[Any, ...]]:
        with pipeline.sql_client() as client:
            names = {name: f"runs.{name}" for name in pipeline.default_schema.tables}
            with client.execute_query(sql.format(**names)) as cursor:
                return [tuple(row) for row in cursor.fetchall()]

    assert_equals_the_server(ask)
