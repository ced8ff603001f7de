"""A dataset that another version of wb_ops loaded: an older one is continued, a newer refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dlt
import pytest

from wb_ops import Api, WarehouseRefused
from wb_ops.devserver import DevServer
from wb_ops.dlt import wandb_source
from wb_ops.errors import find_error
from wb_ops.tables.schemas import SCHEMA_VERSION

Ask = Callable[[str], list[tuple[Any, ...]]]
Load = Callable[..., Any]
OLD = "2026-01-01T00:00:00"
# Tables and columns that a first version did not have; dlt knew of none of them.
WITHOUT = [
    "drop table {runs_flat}",
    "drop table {_wb_rows}",
    "alter table {runs} drop column job_type",
    "alter table {history} drop column _runtime",
    "alter table {_wb_receipts} drop column note",
    "alter table {_wb_state} drop column reconciled_at",
    "update {_wb_state} set schema_version = 1",
    "delete from {_dlt_version}",
]


def seed(server: DevServer, run_id: str, loss: float) -> None:
    server.seed_run(
        "ann", "trials", run_id, created_at=OLD, heartbeat_at=OLD, job_type="train",
        config={"lr": loss / 10}, history=[{"_step": 0, "_runtime": 2.5, "loss": loss}],
    )  # fmt: skip


@pytest.fixture
def destination(tmp_path: Path) -> Any:
    return dlt.destinations.duckdb(str(tmp_path / "loaded.duckdb"))


def test_a_newer_dataset_is_refused(server: DevServer, load: Load, ask: Ask):
    seed(server, "r1", 1.0)
    load()
    ask(f"update {{_wb_state}} set schema_version = {SCHEMA_VERSION + 1}")
    seed(server, "r2", 2.0)
    with pytest.raises(Exception, match="upgrade wb_ops") as caught:
        load()
    assert isinstance(find_error(caught.value), WarehouseRefused)
    assert ask("select run_id, loss from {history}") == [("r1", 1.0)]
    assert ask("select count(*) from {_dlt_loads}") == [(1,)]


def test_an_older_dataset_gets_what_is_new_by_a_full_load(
    server: DevServer, load: Load, ask: Ask, destination: Any, api: Api, tmp_path: Path
):
    seed(server, "r1", 1.0)
    seed(server, "gone", 3.0)
    load()
    for sql in WITHOUT:
        ask(sql)
    server.delete_run("ann", "trials", "gone")
    seed(server, "r2", 2.0)
    shutil.rmtree(tmp_path / "work")
    anew = dlt.pipeline(
        "wandb", pipelines_dir=str(tmp_path / "work"), destination=destination, dataset_name="runs"
    )
    anew.run(wandb_source("ann", "trials", api=api))
    # What no load has counted is trusted: only the new run is read.
    assert ask("select run_id from {history} where _runtime is not null") == [("r2",)]
    ask("delete from {history} where run_id = 'r1'")
    anew.run(wandb_source("ann", "trials", api=api))
    assert ask("select count(*) from {history} where run_id = 'r1'") == [(0,)]
    anew.run(wandb_source("ann", "trials", api=api, mode="full"))
    rows = "select run_id, _runtime, loss from {history} order by 1"
    assert ask(rows) == [("gone", None, 3.0), ("r1", 2.5, 1.0), ("r2", 2.5, 2.0)]
    runs = "select run_id, job_type, deleted_at is not null from {runs} order by 1"
    assert ask(runs) == [("gone", None, True), ("r1", "train", False), ("r2", "train", False)]
    flat = ask("select run_id, config__lr from {runs_flat} order by 1")
    assert flat == [("r1", 0.1), ("r2", 0.2)]
    assert ask("select schema_version from {_wb_state}") == [(SCHEMA_VERSION,)]
