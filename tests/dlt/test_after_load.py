"""What a pipeline's load tells at its end: of its own packages, once, and only what is true."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import dlt
import pytest
from held_file import held

from wb_ops import Api, ExportIncomplete, InvalidRequest
from wb_ops.devserver import DevServer
from wb_ops.dlt import wandb_source
from wb_ops.errors import find_error

Ask = Callable[[str], list[tuple[Any, ...]]]
Load = Callable[..., Any]
Downloads = Callable[[], list[str]]
OLD = "2026-01-01T00:00:00"
FUTURE = "9999999999.5"
MARKED = {"runs": "_load_id", "runs_flat": "_load_id", "history": "_load_id",
          "_wb_receipts": "load_id", "_wb_loads": "load_id", "_wb_state": "load_id",
          "_wb_rows": "load_id", "_dlt_loads": "load_id"}  # fmt: skip


def seed(server: DevServer, run_id: str, rows: int = 1, **fields: Any) -> None:
    history = [{"_step": step, "loss": step / 7} for step in range(rows)]
    moments = {"created_at": OLD, "heartbeat_at": OLD}
    server.seed_run("ann", "trials", run_id, history=history, **(moments | fields))


@pytest.fixture
def destination(tmp_path: Path) -> Any:
    return dlt.destinations.duckdb(str(tmp_path / "loaded.duckdb"))


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [one.message for one in caplog.records if one.name == "wb_ops"]


@pytest.mark.parametrize("left_out", ["runs_flat", "_wb_receipts"])
def test_tables_that_dlt_leaves_out_are_no_damage(
    server: DevServer,
    pipeline: dlt.Pipeline,
    load: Load,
    ask: Ask,
    api: Api,
    left_out: str,
    downloads: Downloads,
):
    seed(server, "r1")
    load()
    seed(server, "r2")

    def load_some() -> None:
        source = wandb_source("ann", "trials", api=api)
        source.resources[left_out].selected = False
        pipeline.run(source)

    load_some()
    assert ask("select run_id from {history} order by 1") == [("r1",), ("r2",)]
    counted = ask("select distinct table_name from {_wb_rows} where run_id = 'r2' order by 1")
    assert counted == ([("history",), ("runs",)] if left_out == "runs_flat" else [])
    if left_out != "_wb_receipts":  # without receipts all is read again, as ever
        server.requests.clear()
        load_some()
        load()
        assert downloads() == []


def test_parts_that_are_loaded_one_by_one_are_no_damage(
    server: DevServer, pipeline: dlt.Pipeline, load: Load, ask: Ask, api: Api, downloads: Downloads
):
    seed(server, "r1")
    load()
    seed(server, "r1b", 2)
    for part in wandb_source("ann", "trials", api=api).decompose("scc"):
        pipeline.run(part)
    assert ask("select run_id, count(*) from {history} group by 1 order by 1") == [
        ("r1", 1), ("r1b", 2)
    ]  # fmt: skip
    assert ask("select distinct run_id from {_wb_rows}") == [("r1",)]
    server.requests.clear()
    load()
    assert downloads() == []


@pytest.mark.parametrize("change", ["add_map", "add_filter", "add_limit"])
def test_changed_resources_are_refused(
    server: DevServer, pipeline: dlt.Pipeline, api: Api, change: str
):
    seed(server, "r1")
    source = wandb_source("ann", "trials", api=api)
    getattr(source.resources["history"], change)(1 if change == "add_limit" else lambda rows: rows)
    with pytest.raises(Exception, match="history are mapped, filtered or limited") as caught:
        pipeline.run(source)
    assert isinstance(find_error(caught.value), InvalidRequest)


def test_a_clock_that_was_ahead_hurts_no_later_load(
    server: DevServer, load: Load, ask: Ask, downloads: Downloads
):
    seed(server, "r1", 3)
    seed(server, "live", 3, state="running")
    load()
    for table, column in MARKED.items():
        ask(f"update {{{table}}} set {column} = '{FUTURE}'")
    server.append_history("ann", "trials", "live", [{"_step": 3, "loss": 0.5}])
    load()
    server.append_history("ann", "trials", "live", [{"_step": 4, "loss": 0.5}])
    server.finish_run("ann", "trials", "live")
    load(mode="reconcile")
    server.requests.clear()
    load()
    assert downloads() == []
    assert ask("select run_id, count(*) from {history} group by 1 order by 1") == [
        ("live", 5), ("r1", 3)
    ]  # fmt: skip
    numbers = ask("select distinct load_number from {_wb_rows} order by 1")
    assert numbers == [(1,), (2,), (3,)]


def test_a_load_that_cannot_be_counted_is_a_finished_one(
    server: DevServer, pipeline: dlt.Pipeline, ask: Ask, hasty: Api, tmp_path: Path,
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch,
):  # fmt: skip
    seed(server, "good", parquet="off")
    seed(server, "short")
    load_of_dlt = pipeline.load
    with ExitStack() as until_then:

        def load_and_lose_the_file(*args: Any, **options: Any) -> Any:
            info = load_of_dlt(*args, **options)
            until_then.enter_context(held(tmp_path / "loaded.duckdb"))
            return info

        # Between dlt's load and our count, where only a `load` of somebody else can stand: that one
        # must be kept, too.
        monkeypatch.setitem(vars(pipeline), "load", load_and_lose_the_file)
        with pytest.raises(ExportIncomplete):
            pipeline.run(wandb_source("ann", "trials", api=hasty, on_incomplete="fail"))
    assert any("could not be counted now" in said for said in warnings(caplog))
    assert vars(pipeline)["load"] is load_and_lose_the_file
    assert ask("select run_id from {history}") == [("good",)]


def test_a_load_of_nothing_tells_nothing_and_the_right_one_does(
    server: DevServer, pipeline: dlt.Pipeline, ask: Ask, hasty: Api
):
    seed(server, "short")
    pipeline.extract(wandb_source("ann", "trials", api=hasty, on_incomplete="fail"))
    pipeline.load()
    pipeline.normalize()
    with pytest.raises(ExportIncomplete):
        pipeline.load()
    assert "load" not in vars(pipeline)
    assert ask("select run_id from {runs}") == [("short",)]


def test_each_of_two_packages_is_told_of(
    server: DevServer, pipeline: dlt.Pipeline, ask: Ask, hasty: Api, api: Api
):
    seed(server, "short")
    pipeline.extract(wandb_source("ann", "trials", api=hasty, on_incomplete="fail"))
    pipeline.extract(wandb_source("ann", "trials", api=api))
    pipeline.normalize()
    with pytest.raises(ExportIncomplete, match="short failed"):
        pipeline.load()
    assert ask("select run_id from {history}") == [("short",)]
    assert "load" not in vars(pipeline)


def test_a_package_that_was_thrown_away_is_not_told_of(
    server: DevServer, pipeline: dlt.Pipeline, hasty: Api
):
    @dlt.resource(name="broken")
    def broken() -> Iterator[dict[str, int]]:
        raise OSError("the disk is gone")
        yield {}

    seed(server, "short")
    sources = [wandb_source("ann", "trials", api=hasty, on_incomplete="fail"), broken()]
    with pytest.raises(Exception, match="the disk is gone"):
        pipeline.extract(sources)
    assert pipeline.run([{"a": 1}], table_name="foreign") is not None
    assert "load" not in vars(pipeline)


def test_a_lone_load_does_not_count_and_a_warning_is_of_what_is_read(
    server: DevServer, pipeline: dlt.Pipeline, load: Load, ask: Ask, api: Api,
    caplog: pytest.LogCaptureFixture,
):  # fmt: skip
    seed(server, "r1", 5)
    load()
    seed(server, "r2", 5)
    pipeline.extract(wandb_source("ann", "trials", api=api))
    pipeline.normalize()
    ask("delete from {history} where run_id = 'r1' and _step = 0")
    pipeline.load()  # no other load has ended since: nothing can be hurt
    load(filters={"display_name": "another"})
    assert warnings(caplog) == []
    load()
    assert warnings(caplog) == [
        said for said in warnings(caplog) if said.startswith("1 runs are read again")
    ]
    assert len(warnings(caplog)) == 1
    assert ask("select count(*) from {history}") == [(10,)]


@pytest.fixture(autouse=True)
def _told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "wb_ops")
