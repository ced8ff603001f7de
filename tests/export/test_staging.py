"""Rows wait for their commit in memory or in files; the warehouse cannot tell."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from wb_ops import Api, connect, execute_export, plan_export
from wb_ops.client.raw import RawHistory
from wb_ops.devserver import DevServer
from wb_ops.export import execute
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
def seen(monkeypatch: pytest.MonkeyPatch) -> list[StagedRun]:
    """All runs that were staged."""
    found: list[StagedRun] = []
    stage = Stager.stage

    def seen_stage(self: Stager, *arguments: Any) -> StagedRun:
        found.append(stage(self, *arguments))
        return found[-1]

    monkeypatch.setattr(Stager, "stage", seen_stage)
    return found


@pytest.fixture
def alternate(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Has every other table find no room."""

    def switch() -> None:
        take = Room.take
        asked: list[pa.Table] = []

        def seldom(self: Room, rows: pa.Table) -> bool:
            asked.append(rows)
            return len(asked) % 2 == 0 and take(self, rows)

        monkeypatch.setattr(Room, "take", seldom)

    return switch


def kinds(runs: list[StagedRun]) -> list[str]:
    """Where the rows of these runs were, before they were discarded."""
    parts = [part for run in runs if run.history for part in run.history.parts]
    return ["file" if part._room is None else "memory" for part in parts]


def stage(api: Api, folder: Path, room: Room, run_id: str = "r1") -> StagedRun:
    source = api.source("ann/trials")
    stager = Stager(source, api.reader, folder, "load", redacts=False, room=room)
    return stager.stage(PlannedRun(source.fetch_node(run_id), "new", reads_history=True), None)


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
    seen: list[StagedRun],
    alternate: Callable[[], None],
    destination: str,
):
    in_memory = export(api, f"{destination}:///{tmp_path / 'memory'}")
    assert kinds(seen) == ["memory"] * RUNS
    seen.clear()
    alternate()
    in_both = export(api, f"{destination}:///{tmp_path / 'both'}")
    assert sorted(kinds(seen)) == ["file"] * (RUNS // 2) + ["memory"] * (RUNS // 2)
    seen.clear()
    monkeypatch.setattr(execute, "BYTES_PER_CELL", 0)
    in_files = export(api, f"{destination}:///{tmp_path / 'files'}")
    assert kinds(seen) == ["file"] * RUNS
    assert len(in_memory) > RUNS * (ROWS + 1)
    # As text, in which NaN is NaN.
    assert repr(in_both) == repr(in_files) == repr(in_memory)


def test_rows_stay_in_memory_while_there_is_room(project: DevServer, api: Api, tmp_path: Path):
    room = Room(200_000)
    first = stage(api, tmp_path, room)
    assert kinds([first]) == ["memory"]
    assert list(tmp_path.iterdir()) == []
    others = [stage(api, tmp_path, room) for _ in range(10)]
    assert {"memory", "file"} == set(kinds(others))
    assert first.history is not None
    first.history.parts[0].discard()
    assert kinds([stage(api, tmp_path, room)]) == ["memory"]


def test_columns_of_few_rows_take_room_too(server: DevServer, api: Api, tmp_path: Path):
    """A row of 1,000 metrics is 8 kB of numbers and a megabyte of objects."""
    history = [{"_step": 0, **{f"m{number}": 0.5 for number in range(1000)}}]
    server.seed_run("ann", "trials", "r1", history=history)
    assert kinds([stage(api, tmp_path, Room(1_000_000))]) == ["file"]
    assert kinds([stage(api, tmp_path, Room(10_000_000))]) == ["memory"]


def test_a_run_that_leaves_no_room_for_others_goes_to_files(
    project: DevServer, api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(Room, "take", lambda self, rows: True)
    cells = ROWS * 8
    assert kinds([stage(api, tmp_path, Room(8 * cells))]) == ["file"]
    assert kinds([stage(api, tmp_path, Room(40 * cells))]) == ["memory"]


def test_a_run_that_fails_half_way_leaves_nothing(
    project: DevServer, api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    room = Room(10**9)
    iter_merged = RawHistory.iter_merged
    kept: list[StagedRows] = []
    keep = Stager._keep

    def broken(self: RawHistory) -> Any:
        yield from iter_merged(self)
        raise ValueError("the second group is broken")

    def seen_keep(self: Stager, table: pa.Table, **options: Any) -> StagedRows:
        kept.append(keep(self, table, **options))
        return kept[-1]

    monkeypatch.setattr(RawHistory, "iter_merged", broken)
    monkeypatch.setattr(Stager, "_keep", seen_keep)
    for some in (room, Room(0)):
        failed = stage(api, tmp_path, some)
        assert failed.history is None
        assert failed.error is not None
    assert [part.content for part in kept] == [None, None]
    assert room._taken == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("bytes_per_cell", [0, 2_000], ids=["files", "memory"])
def test_what_is_committed_takes_no_room(
    project: DevServer,
    api: Api,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    bytes_per_cell: int,
):
    """Of several batches none is there after the last one, and never all of them."""
    monkeypatch.setattr(execute, "BYTES_PER_CELL", bytes_per_cell)
    monkeypatch.setattr(execute, "temporary_folder", lambda prefix: _Folder(tmp_path / "staging"))
    tables: list[weakref.ref[Any]] = []
    in_files: list[bool] = []
    keep = Stager._keep

    def seen_keep(self: Stager, table: pa.Table, **options: Any) -> StagedRows:
        tables.append(weakref.ref(table))
        kept = keep(self, table, **options)
        in_files.append(isinstance(kept.content, Path))
        return kept

    monkeypatch.setattr(Stager, "_keep", seen_keep)
    left: list[int] = []

    def on_progress(progress: Progress) -> None:
        in_memory = sum(table() is not None for table in tables)
        left.append(len(list((tmp_path / "staging").iterdir())) + in_memory)

    warehouse = connect(f"duckdb:///{tmp_path / 'x.db'}")
    request = ExportRequest("ann", "trials", max_cells=ROWS * 20, max_workers=1)
    execute_export(plan_export(request, api, warehouse), api, warehouse, on_progress)
    assert in_files == [bytes_per_cell == 0] * RUNS
    assert len(left) > 2
    assert left[-1] == 0
    assert max(left) < RUNS


class _Folder:
    """A folder that stays, so that one sees what is left in it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> Path:
        self.path.mkdir()
        return self.path

    def __exit__(self, *_: object) -> None:
        pass
