"""A history is merged group by group; the groups are the whole, in order, without overlap."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wb_ops import Api, InvalidRequest, MalformedResponse
from wb_ops.client import parts
from wb_ops.client.parts import clusters, file_pieces
from wb_ops.client.raw import RawHistory
from wb_ops.client.selection import Selection
from wb_ops.devserver import DevServer, Fault, Matcher, Responder
from wb_ops.tables.history import to_rows

ALL = Selection()


def parquet(steps: list[int], rows_per_group: int = 1000, **columns: list[Any]) -> io.BytesIO:
    file = io.BytesIO()
    table = pa.table({"_step": pa.array(steps, pa.int64()), **columns})
    pq.write_table(table, file, row_group_size=rows_per_group)
    return file


def raw(files: list[io.BytesIO], selection: Selection = ALL) -> RawHistory:
    pieces = [
        piece
        for number, file in enumerate(files)
        for piece in file_pieces(file, "ann/trials/r1", number)
    ]
    return RawHistory("ann/trials/r1", tuple(pieces), selection, "parquet", 0)


def test_a_small_file_of_very_many_rows_stays_small_in_memory(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(parts, "ROWS_PER_MERGE", 100_000)
    rows = 10_000_000
    file = io.BytesIO()
    table = pa.table({"_step": np.zeros(rows, np.int64)})
    pq.write_table(table, file, row_group_size=rows, write_statistics=False)
    assert len(file.getvalue()) < 50_000
    pool = pa.proxy_memory_pool(pa.default_memory_pool())
    before = pa.default_memory_pool()
    pa.set_memory_pool(pool)
    try:
        (piece,) = file_pieces(file, "ann/trials/r1")
        monkeypatch.setattr(parts, "MAX_CELLS_AT_ONCE", rows - 1)
        with pytest.raises(InvalidRequest, match="declares 10,000,000 values"):
            list(piece.iter_tables(None))
        assert pool.max_memory() < 20_000_000
    finally:
        pa.set_memory_pool(before)


step_lists = st.lists(st.lists(st.integers(0, 60), min_size=1, max_size=20), max_size=6)


@pytest.fixture(autouse=True)
def _small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "ROWS_PER_MERGE", 5)


@given(step_lists, st.integers(1, 7))
def test_groups_merged_one_by_one_are_the_whole(files: list[list[int]], rows_per_group: int):
    history = raw(
        [
            parquet(steps, rows_per_group, loss=[number + step / 100 for step in steps])
            for number, steps in enumerate(files)
        ]
    )
    whole = history.merged()
    groups = list(history.iter_merged())
    assert [row for group in groups for row in to_rows(group.table)] == to_rows(whole.table)
    assert sum(group.rows_read for group in groups) == whole.rows_read
    assert sum(group.repeated_rows for group in groups) == whole.repeated_rows
    assert sum(group.overwritten_cells for group in groups) == whole.overwritten_cells


def test_of_two_files_the_one_that_starts_later_counts():
    """Its row groups count as the file does, wherever they begin themselves."""
    early = parquet([0, 1, 6, 7], 2, a=[0, 0, 0, 0])
    late = parquet([5, 6, 7], 3, a=[1, 1, 1])
    for files in ([early, late], [late, early]):
        for merged in (raw(files).merged(), next(raw(files).iter_merged())):
            assert merged.table["a"].to_pylist() == [0, 0, 1, 1, 1]


def test_files_apart_are_groups_of_their_own():
    files = [parquet(list(range(at, at + 10)), loss=[1.0] * 10) for at in (20, 0, 10)]
    groups = [[piece.first_step for piece in group] for group in clusters(raw(files).pieces)]
    assert groups == [[0], [10], [20]]


def test_files_that_overlap_are_merged_together():
    files = [parquet([0, 1, 2, 3, 4, 5], a=[0] * 6), parquet([5, 6], a=[1, 1])]
    assert [len(group) for group in clusters(raw(files).pieces)] == [2]


def test_a_file_without_statistics_is_read_for_its_bounds():
    file = io.BytesIO()
    pq.write_table(pa.table({"_step": [3, 1, 2]}), file, write_statistics=False)
    assert [(p.first_step, p.last_step) for p in file_pieces(file, "x")] == [(1, 3)]


@pytest.mark.parametrize(
    "content", [b"", b"PAR1" * 3, parquet([1]).getvalue()[:-20]], ids=["empty", "magic", "cut"]
)
def test_what_is_no_whole_file_is_refused(content: bytes):
    with pytest.raises(MalformedResponse, match="ann/trials/r1"):
        file_pieces(io.BytesIO(content), "ann/trials/r1")


def test_a_file_without_steps_is_refused():
    file = io.BytesIO()
    pq.write_table(pa.table({"loss": [1.0]}), file)
    with pytest.raises(MalformedResponse):
        file_pieces(file, "ann/trials/r1")


def test_only_the_asked_columns_and_groups_are_read():
    files = [parquet(list(range(20)), 10, loss=[1.0] * 20, other=[2.0] * 20)]
    history = raw(files, Selection(keys=("loss",), min_step=12))
    assert len([p for p in history.pieces if history.selection.touches(p.first_step, p.last_step)])
    table = history.select(history.merged().table)
    assert (table.column_names, table.num_rows) == (["_step", "loss"], 8)


class TestSourcesOfManyRuns:
    @pytest.fixture
    def runs(self, server: DevServer) -> list[str]:
        names = [f"r{index:02}" for index in range(25)]
        for name in names:
            server.seed_run("ann", "trials", name, history=[{"_step": 0, "loss": 1.0}])
        return names

    def test_they_come_in_one_request_for_twenty(
        self, server: DevServer, api: Api, runs: list[str]
    ):
        found = api.reader.sources_of(api.source("ann/trials"), [*runs, "gone"])
        assert set(found) == set(runs)
        assert server.requests.operations() == ["RunParquetHistory"] * 2
        assert all(one.line_count == 1 and len(one.urls) == 1 for one in found.values())

    def test_a_server_that_refuses_is_asked_run_by_run(
        self, server: DevServer, api: Api, runs: list[str]
    ):
        server.faults.add(Fault(Matcher(operation="RunParquetHistory"), Responder.error(400)))
        assert api.reader.sources_of(api.source("ann/trials"), runs[:5]) == {}
        assert api.run("ann/trials/r01").history_table().num_rows == 1
