"""Many histories at once: every row of each, in bounded memory, and errors by run."""

from __future__ import annotations

import io
import json
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wb_ops import Api, AuthenticationFailed, CommError, InvalidRequest, NotFound
from wb_ops.client import live_rows, parts, stream
from wb_ops.client.live_rows import LiveRows
from wb_ops.client.parts import file_pieces, live_piece
from wb_ops.client.raw import RawHistory
from wb_ops.client.selection import EVERYTHING, Selection
from wb_ops.client.stream import read_stream
from wb_ops.devserver import DevServer, Fault, Matcher, Responder
from wb_ops.settings import Settings
from wb_ops.tables.history import to_rows
from wb_ops.tables.plain_rows import read_plain

SOURCES = Matcher(operation="RunParquetHistory")
FAULTY = Responder.error(500)


@pytest.fixture
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Histories of more than five rows are long, and live rows go to disk at once."""
    monkeypatch.setattr(parts, "ROWS_PER_MERGE", 5)
    monkeypatch.setattr(stream, "ROWS_PER_MERGE", 5)
    monkeypatch.setattr(live_rows, "MAX_HELD_BYTES", 0)


@pytest.fixture
def many(server: DevServer) -> list[str]:
    names = [f"r{index:02}" for index in range(22)]
    for index, name in enumerate(names):
        forms = ("auto", "off", 4)
        history = [
            {"_step": 3 * step, "loss": step / 7, f"own{index}": step, "word": f"w{step}"}
            for step in range(index)
        ]
        server.seed_run("ann", "trials", name, history=history, parquet=forms[index % 3])
    return names


def rows_of(reader: pa.RecordBatchReader) -> list[dict[str, object]]:
    return to_rows(reader.read_all())


def scanned(api: Api, **how: Any) -> dict[str, list[dict[str, object]]]:
    runs = api.runs("ann/trials", order="+created_at")
    return {run.id: rows_of(reader) for run, reader in api.scan_histories(runs, **how)}


class TestManyRuns:
    @pytest.mark.parametrize("keys", [None, ["loss"], ["own7", "gone"]])
    def test_each_history_is_that_of_the_run_alone(
        self, api: Api, many: list[str], keys: list[str] | None
    ):
        found = scanned(api, keys=keys)
        assert sorted(found) == many
        for name, rows in found.items():
            assert rows == list(api.run(f"ann/trials/{name}").scan_history(keys=keys)), name

    @pytest.mark.usefixtures("small_groups")
    @pytest.mark.parametrize("window", [{}, {"min_step": 9, "max_step": 30}])
    def test_long_histories_are_streamed(self, api: Api, many: list[str], window: dict[str, int]):
        found = scanned(api, **window)
        assert sorted(found) == many
        for name, rows in found.items():
            assert rows == list(api.run(f"ann/trials/{name}").scan_history(**window)), name

    def test_sources_come_for_twenty_runs_at_once(
        self, api: Api, server: DevServer, many: list[str]
    ):
        scanned(api)
        assert server.requests.operations().count("RunParquetHistory") == len(many) // 20 + 1

    def test_a_server_that_refuses_is_asked_run_by_run(
        self, api: Api, server: DevServer, many: list[str]
    ):
        server.faults.add(Fault(SOURCES, Responder.error(400)))
        assert len(scanned(api)) == len(many)
        assert server.requests.operations().count("RunParquetHistory") == 1 + len(many)

    def test_one_row_in_flight_is_enough(self, api: Api, many: list[str]):
        assert len(scanned(api, max_rows_in_flight=1)) == len(many)

    def test_no_row_in_flight_is_refused(self, api: Api, many: list[str]):
        with pytest.raises(InvalidRequest, match="max_rows_in_flight=0"):
            scanned(api, max_rows_in_flight=0)

    def test_keys_mean_what_they_mean_for_one_run(self, api: Api, many: list[str]):
        run = api.run("ann/trials/r21")
        with pytest.raises(InvalidRequest, match=r"keys='loss': give a list"):
            api.scan_histories([run], keys="loss")
        ((_, reader),) = api.scan_histories([run], keys=[])
        assert rows_of(reader) == list(run.scan_history(keys=[])) == list(run.scan_history())

    def test_a_scan_can_be_left_early(self, api: Api, many: list[str]):
        scan = api.scan_histories(api.runs("ann/trials"))
        run, reader = next(scan)
        scan.close()
        assert run.id in many
        assert reader.read_all().num_rows == int(run.id[1:])


class TestErrors:
    def test_a_deleted_run_is_reported_and_the_others_go_on(
        self, api: Api, server: DevServer, many: list[str]
    ):
        runs = list(api.runs("ann/trials"))
        server.delete_run("ann", "trials", "r07")
        failed: dict[str, CommError] = {}
        scan = api.scan_histories(runs, on_error=lambda run, error: failed.update({run.id: error}))
        assert len([run.id for run, _ in scan]) == len(many) - 1
        assert isinstance(failed.pop("r07"), NotFound)
        assert not failed

    def test_without_somebody_to_tell_it_is_raised(
        self, api: Api, server: DevServer, many: list[str]
    ):
        runs = list(api.runs("ann/trials"))
        server.delete_run("ann", "trials", many[3])
        with pytest.raises(NotFound, match=many[3]):
            list(api.scan_histories(runs))

    def test_where_twenty_cannot_be_asked_for_together_each_is_asked_for(
        self, server: DevServer, many: list[str]
    ):
        settings = Settings(api_key=server.api_key, base_url=server.url, max_attempts=1)
        # The first twenty together, and the first of them alone.
        for nth in (1, 3):
            server.faults.add(Fault(Matcher(operation=SOURCES.operation, nth=nth), FAULTY))
        failed: list[str] = []
        with Api(settings=settings) as api:
            runs = api.runs("ann/trials")
            scan = api.scan_histories(runs, on_error=lambda run, error: failed.append(run.id))
            found = [run.id for run, _ in scan]
        assert len(failed) == 1
        assert sorted([*found, *failed]) == many

    def test_a_key_that_is_revoked_stops_all(self, api: Api, server: DevServer, many: list[str]):
        runs = list(api.runs("ann/trials"))
        assert len(runs) == len(many)
        server.faults.add(Fault(SOURCES, Responder.error(401), times=None))
        failed: list[CommError] = []
        with pytest.raises(AuthenticationFailed):
            list(api.scan_histories(runs, on_error=lambda run, error: failed.append(error)))
        assert not failed


values = {
    "int64": st.integers(-(2**60), 2**60),
    "float64": st.floats(),
    "string": st.sampled_from(["a", "NaN", '{"_type": "histogram", "bins": [1]}']),
    "bool_": st.booleans(),
}


@st.composite
def a_file(draw: st.DrawFn) -> tuple[list[int], str, list[Any]]:
    steps = draw(st.lists(st.integers(0, 40), min_size=1, max_size=12))
    type_ = draw(st.sampled_from(sorted(values)))
    cells = st.one_of(st.none(), values[type_])
    return steps, type_, draw(st.lists(cells, min_size=len(steps), max_size=len(steps)))


def raw(files: list[tuple[list[int], str, list[Any]]], selection: Selection) -> RawHistory:
    pieces = []
    for number, (steps, type_, cells) in enumerate(files):
        file = io.BytesIO()
        column = pa.array(cells, getattr(pa, type_)())
        table = pa.table({"_step": pa.array(steps, pa.int64()), "x": column})
        pq.write_table(table, file, row_group_size=4)
        pieces += file_pieces(file, "ann/trials/r1", number)
    return RawHistory("ann/trials/r1", tuple(pieces), selection, "parquet", 0)


texts = st.sampled_from(["NaN", "-Infinity", "NaN", "text"])
cells = st.one_of(texts, st.integers(-3, 2**60), st.floats(), st.booleans(), st.just([1]))
nested = st.dictionaries(st.sampled_from(["b", "c", "b.c"]), st.one_of(cells, st.just({"c": 1})))
live_row = st.dictionaries(
    st.sampled_from(["a", "a.b", "x", "x\0"]), st.one_of(texts, texts, cells, nested), max_size=3
)


def live(rows: list[dict[str, Any]]) -> RawHistory:
    """Live rows in chunks of three, each in the form in which a window of steps comes."""
    chunks = LiveRows()
    pieces = []
    for start in range(0, len(rows), 3):
        steps = range(start, min(start + 3, len(rows)))
        window = [json.dumps({"_step": step, **rows[step]}) for step in steps]
        part = chunks.add(window, read_plain(window))
        pieces.append(live_piece(part, steps, 0))
    return RawHistory("p", tuple(pieces), EVERYTHING, "paged", 0, live=chunks)


def exact(rows: list[dict[str, object]]) -> list[str]:
    """Rows as texts: NaN is NaN, keys have no order, a number may be an integer or a double."""
    numbers = [{k: v * 1.0 if type(v) is int else v for k, v in row.items()} for row in rows]
    return [json.dumps(row, sort_keys=True) for row in numbers]


@pytest.mark.usefixtures("small_groups")
class TestStreams:
    @settings(max_examples=60)
    @given(st.lists(a_file(), max_size=5))
    def test_a_stream_is_the_whole(self, files: list[tuple[list[int], str, list[Any]]]):
        """Whatever types a key has in the groups, the stream has one schema that holds all."""
        whole = raw(files, EVERYTHING).merged().table
        streamed = read_stream(raw(files, EVERYTHING)).read_all()
        streamed.validate(full=True)
        assert exact(to_rows(streamed)) == exact(to_rows(whole))

    @settings(max_examples=150)
    @given(st.lists(live_row, max_size=24))
    def test_live_rows_are_read_alike_group_by_group(self, rows: list[dict[str, Any]]):
        """Whatever text or object is in one group alone, its key is what all rows make of it."""
        whole = exact(to_rows(live(rows).merged().table))
        assert exact(to_rows(read_stream(live(rows)).read_all())) == whole
        one_by_one = [row for part in live(rows).iter_merged() for row in to_rows(part.table)]
        assert exact(one_by_one) == whole

    def test_live_rows_on_disk_come_back(self):
        live = LiveRows()
        pieces = []
        for start in (10, 0, 20):
            steps = range(start, start + 6)
            rows = [f'{{"_step": {step}, "x": NaN, "t": "a\nb"}}' for step in steps]
            part = live.add(rows, None)
            pieces.append(live_piece(part, steps, sum(map(len, rows))))
        history = RawHistory("p", tuple(pieces), EVERYTHING, "paged", 0, live=live)
        streamed = read_stream(history).read_all()
        assert streamed["_step"].to_pylist() == [*range(6), *range(10, 16), *range(20, 26)]
        assert set(streamed["t"].to_pylist()) == {"a\nb"}

    def test_a_large_row_group_is_cut_where_its_steps_increase(self):
        for steps, slices in ((list(range(40)), 8), ([1, 0, *range(2, 40)], 1)):
            file = io.BytesIO()
            pq.write_table(pa.table({"_step": steps, "x": [1.5] * 40}), file)
            history = RawHistory("p", tuple(file_pieces(file, "p")), EVERYTHING, "parquet", 0)
            merged = list(history.iter_merged())
            assert len(merged) == slices
            assert sum(one.rows_read for one in merged) == 40
            assert read_stream(history).read_all()["_step"].to_pylist() == list(range(40))

    def test_a_stream_that_is_thrown_away_closes_its_files(self, server: DevServer, api: Api):
        history = [{"_step": step, "x": step} for step in range(30)]
        server.seed_run("ann", "trials", "r1", history=history)
        source = api.source("ann/trials")
        raw_history = api.reader.read(source, "r1")
        reader = read_stream(raw_history)
        del reader
        assert all(file.closed for file in raw_history.files)
