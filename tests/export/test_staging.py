"""Rows wait for their commit in memory or in files; the warehouse cannot tell."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from contextlib import nullcontext
from itertools import count
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from wb_ops import Api, connect, execute_export, plan_export
from wb_ops.client.raw import RawHistory
from wb_ops.devserver import DevServer
from wb_ops.export import execute
from wb_ops.export import staged as staged_rows
from wb_ops.export.decide import PlannedRun
from wb_ops.export.report import Progress
from wb_ops.export.request import ExportRequest
from wb_ops.export.staged import Room, StagedRows, StagedRun
from wb_ops.export.staging import Stager

REQUEST = ExportRequest("ann", "trials")
RUNS, ROWS = 6, 50
LONG_ID = "r" * 128


@pytest.fixture(params=["the same metrics", "others in each run"])
def project(server: DevServer, request: pytest.FixtureRequest) -> DevServer:
    """Six runs, one with an id longer than a file's name; each ends in a row of other values."""
    own = request.param == "others in each run"
    for index in range(RUNS):
        key = f"m{index}" if own else "m"
        history = [
            {"_step": step, "_timestamp": 1.7e9 + step, "loss": step / 7, key: step}
            for step in range(ROWS)
        ]
        history.append({"_step": ROWS, "loss": float("nan"), "note": "a word", "big": 2**60 + 1})
        run_id = f"r{index}" if index else LONG_ID
        server.seed_run("ann", "trials", run_id, history=history)
    return server


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> list[StagedRows]:
    """All rows that were staged."""
    found: list[StagedRows] = []
    keep = Stager._keep

    def seen_keep(self: Stager, table: pa.Table, **options: Any) -> StagedRows:
        found.append(keep(self, table, **options))
        return found[-1]

    monkeypatch.setattr(Stager, "_keep", seen_keep)
    return found


def refuse_every_other(monkeypatch: pytest.MonkeyPatch) -> None:
    take, turns = Room.take, count()
    monkeypatch.setattr(Room, "take", lambda self, rows: next(turns) % 2 == 1 and take(self, rows))


def kinds(rows: Sequence[StagedRows]) -> list[str]:
    """Where rows were, before they were discarded."""
    return ["file" if one._room is None else "memory" for one in rows]


def stage(api: Api, folder: Path, room: Room) -> StagedRun:
    source = api.source("ann/trials")
    stager = Stager(source, api.reader, folder, "load", redacts=False, room=room)
    return stager.stage(PlannedRun(source.fetch_node("r1"), "new", reads_history=True), None)


def staged(api: Api, folder: Path, room: Room) -> StagedRows:
    history = stage(api, folder, room).history
    assert history is not None
    return history.parts[0]


def export(api: Api, url: str) -> list[dict[str, Any]]:
    """All rows of both history tables, of which two metrics have columns."""
    warehouse = connect(f"{url}?history_columns=2")
    execute_export(plan_export(REQUEST, api, warehouse), api, warehouse)
    return [
        row
        for table in ("history", "history_long")
        for row in warehouse.query(
            f"select * exclude (_load_id) from {table} order by all", "ann__trials"
        ).to_pylist()
    ]


@pytest.mark.parametrize("destination", ["duckdb", "parquet"])
def test_rows_in_memory_in_files_and_in_both_give_the_same_tables(
    project: DevServer,
    api: Api,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kept: list[StagedRows],
    destination: str,
):
    in_memory = export(api, f"{destination}:///{tmp_path / 'memory'}")
    refuse_every_other(monkeypatch)
    in_both = export(api, f"{destination}:///{tmp_path / 'both'}")
    monkeypatch.setattr(Room, "take", lambda self, rows: False)
    in_files = export(api, f"{destination}:///{tmp_path / 'files'}")
    half = ["file"] * (RUNS // 2) + ["memory"] * (RUNS // 2)
    assert kinds(kept[:RUNS]) == ["memory"] * RUNS
    assert sorted(kinds(kept[RUNS : 2 * RUNS])) == half
    assert kinds(kept[2 * RUNS :]) == ["file"] * RUNS
    assert len(in_memory) > RUNS * (ROWS + 1)
    # As text, in which NaN is NaN.
    assert repr(in_both) == repr(in_files) == repr(in_memory)


def test_rows_stay_in_memory_while_there_is_room(project: DevServer, api: Api, tmp_path: Path):
    room = Room(10_000)
    first = staged(api, tmp_path, room)
    assert kinds([first]) == ["memory"]
    assert list(tmp_path.iterdir()) == []
    assert set(kinds([staged(api, tmp_path, room) for _ in range(10)])) == {"memory", "file"}
    first.discard()
    first.discard()
    assert kinds([staged(api, tmp_path, room) for _ in range(2)]) == ["memory", "file"]


def test_columns_of_few_rows_take_room_too(server: DevServer, api: Api, tmp_path: Path):
    """A row of 1,000 metrics is 8 kB of numbers and a megabyte of objects."""
    history = [{"_step": 0, **{f"m{number}": 0.5 for number in range(1000)}}]
    server.seed_run("ann", "trials", "r1", history=history)
    assert kinds([staged(api, tmp_path, Room(50_000))]) == ["file"]
    assert kinds([staged(api, tmp_path, Room(500_000))]) == ["memory"]


def test_a_run_that_leaves_no_room_for_others_goes_to_files(
    project: DevServer, api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(Room, "take", lambda self, rows: True)
    assert kinds([staged(api, tmp_path, Room(3 * ROWS))]) == ["file"]
    assert kinds([staged(api, tmp_path, Room(30 * ROWS))]) == ["memory"]


@pytest.mark.parametrize("max_cells", [0, 10**8], ids=["files", "memory"])
def test_a_run_that_fails_half_way_leaves_nothing(
    project: DevServer,
    api: Api,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kept: list[StagedRows],
    max_cells: int,
):
    iter_merged = RawHistory.iter_merged

    def broken(self: RawHistory) -> Any:
        yield from iter_merged(self)
        raise ValueError("the second group is broken")

    monkeypatch.setattr(RawHistory, "iter_merged", broken)
    room = Room(max_cells)
    free = room._free_bytes
    failed = stage(api, tmp_path, room)
    assert failed.history is None
    assert failed.error is not None
    assert kinds(kept) == ["memory" if max_cells else "file"]
    assert kept[0].content is None
    assert room._free_bytes == free
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("bytes_per_cell", [0, 2_000], ids=["files", "memory"])
def test_what_is_committed_takes_no_room(
    project: DevServer,
    api: Api,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kept: list[StagedRows],
    bytes_per_cell: int,
):
    """Of several batches none is there after the last one, and never all of them."""
    folder = tmp_path / "staging"
    folder.mkdir()
    monkeypatch.setattr(staged_rows, "BYTES_PER_CELL", bytes_per_cell)
    monkeypatch.setattr(execute, "temporary_folder", lambda prefix: nullcontext(folder))
    tables: list[weakref.ref[Any]] = []
    take = Room.take

    def seen_take(self: Room, rows: pa.Table) -> bool:
        tables.append(weakref.ref(rows))
        return take(self, rows)

    monkeypatch.setattr(Room, "take", seen_take)
    left: list[int] = []

    def on_progress(progress: Progress) -> None:
        in_memory = sum(table() is not None for table in tables)
        left.append(len(list(folder.iterdir())) + in_memory)

    warehouse = connect(f"duckdb:///{tmp_path / 'x.db'}")
    request = ExportRequest("ann", "trials", max_cells=ROWS * 20, max_workers=1)
    execute_export(plan_export(request, api, warehouse), api, warehouse, on_progress)
    assert kinds(kept) == ["memory" if bytes_per_cell else "file"] * RUNS
    assert len(tables) == RUNS
    assert len(left) > 2
    assert left[-1] == 0
    assert max(left) < RUNS
