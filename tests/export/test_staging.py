"""Rows wait for their commit in memory or in files; the warehouse cannot tell."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from wb_ops import Api, connect, execute_export, plan_export
from wb_ops.devserver import DevServer
from wb_ops.export import staging
from wb_ops.export.decide import PlannedRun
from wb_ops.export.request import ExportRequest
from wb_ops.export.staged import StagedRun
from wb_ops.export.staging import Stager

REQUEST = ExportRequest("ann", "trials")
ROWS = 6 * 51


@pytest.fixture
def mixed(server: DevServer) -> DevServer:
    """Runs with the same metrics, with others, with text, and one with an id of 128 letters."""
    for index in range(6):
        history = [
            {"_step": step, "_timestamp": 1.7e9 + step, "loss": step / 7, f"m{index % 3}": step}
            for step in range(50)
        ]
        history.append({"_step": 50, "loss": float("nan"), "note": "a word", "big": 2**60 + 1})
        run_id = f"r{index}" if index else "r" * 128
        server.seed_run("ann", "trials", run_id, history=history)
    return server


@pytest.fixture
def staged(monkeypatch: pytest.MonkeyPatch) -> list[StagedRun]:
    """All runs that were staged."""
    seen: list[StagedRun] = []
    stage = Stager.stage

    def seen_stage(self: Stager, *arguments: Any) -> StagedRun:
        seen.append(stage(self, *arguments))
        return seen[-1]

    monkeypatch.setattr(Stager, "stage", seen_stage)
    return seen


def kinds(run: StagedRun) -> set[str]:
    assert run.history is not None
    return {"file" if isinstance(one.part, Path) else "memory" for one in run.history.parts}


def stager(api: Api, folder: Path, cells: int) -> Stager:
    source = api.source("ann/trials")
    return Stager(source, api.reader, folder, "load", redacts=False, cells_in_memory=cells)


def planned(api: Api, run_id: str) -> PlannedRun:
    return PlannedRun(api.source("ann/trials").fetch_node(run_id), "new", reads_history=True)


@pytest.mark.parametrize("destination", ["duckdb", "parquet"])
def test_both_give_the_same_tables(
    mixed: DevServer,
    api: Api,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    destination: str,
):
    tables = []
    for name in ("memory", "files"):
        if name == "files":
            monkeypatch.setattr(staging, "BYTES_PER_CELL", 0)
        # Three metrics have columns, so that some go to history_long.
        warehouse = connect(f"{destination}:///{tmp_path / name}?history_columns=3")
        execute_export(plan_export(REQUEST, api, warehouse), api, warehouse)
        tables.append(
            [
                warehouse.query(
                    f"select * exclude (_load_id) from {table} order by all", "ann__trials"
                ).to_pylist()
                for table in ("history", "history_long")
            ]
        )
    history, past_cap = tables[0]
    assert (len(history), len(past_cap)) == (ROWS, 2 * 50 + 6)
    # As text, in which NaN is NaN.
    assert repr(tables[1]) == repr(tables[0])


def test_rows_stay_in_memory_while_arrow_holds_little(mixed: DevServer, api: Api, tmp_path: Path):
    cells = 100_000
    some = stager(api, tmp_path, cells).stage(planned(api, "r1"), None)
    assert kinds(some) == {"memory"}
    assert list(tmp_path.iterdir()) == []
    ballast = pa.allocate_buffer(cells * staging.BYTES_PER_CELL)
    assert kinds(stager(api, tmp_path, cells).stage(planned(api, "r1"), None)) == {"file"}
    del ballast
    assert kinds(stager(api, tmp_path, cells).stage(planned(api, "r1"), None)) == {"memory"}


def test_a_long_run_goes_to_files(mixed: DevServer, api: Api, tmp_path: Path):
    assert kinds(stager(api, tmp_path, 100).stage(planned(api, "r1"), None)) == {"file"}


@pytest.mark.parametrize("bytes_per_cell", [0, staging.BYTES_PER_CELL])
def test_what_is_committed_takes_no_room(
    mixed: DevServer,
    api: Api,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    staged: list[StagedRun],
    bytes_per_cell: int,
):
    monkeypatch.setattr(staging, "BYTES_PER_CELL", bytes_per_cell)
    warehouse = connect(f"duckdb:///{tmp_path / 'x.db'}")
    execute_export(plan_export(REQUEST, api, warehouse), api, warehouse)
    parts = [part for run in staged if run.history for part in run.history.parts]
    assert len(parts) == 6
    assert [part.part for part in parts] == [None] * 6
