"""Of a large exported file only the wanted columns are fetched, and never anything else."""

from __future__ import annotations

from tempfile import TemporaryFile

import pytest
import requests

from wb_ops import Api, MalformedResponse
from wb_ops.client import exports
from wb_ops.client.downloads import FileRange, WholeFile
from wb_ops.devserver import DevServer, Fault, Matcher, Responder

DOWNLOAD = "/exports/*"
WIDTH = 40
ROWS = 3_000


@pytest.fixture
def small_head(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of more than a few kB are large."""
    monkeypatch.setattr(exports, "HEAD_BYTES", 4_000)
    monkeypatch.setattr(exports, "TAIL_BYTES", 1_000)
    monkeypatch.setattr(exports, "MAX_GAP_BYTES", 100)


@pytest.fixture
def wide(server: DevServer) -> list[dict[str, object]]:
    rows = [
        {"_step": step, **{f"m{key}": (step * 7919 + key) % 100_003 / 7 for key in range(WIDTH)}}
        for step in range(ROWS)
    ]
    server.seed_run("ann", "trials", "r1", history=rows)
    return rows


@pytest.mark.usefixtures("small_head")
class TestRanges:
    @pytest.mark.parametrize("keys", [["m3"], ["m0", "m39"], ["gone"]])
    def test_few_columns_of_a_wide_file(
        self, api: Api, wide: list[dict[str, object]], keys: list[str]
    ):
        run = api.run("ann/trials/r1")
        before = api.transport.traffic.received_bytes
        table = run.history_table(keys=keys)
        received = api.transport.traffic.received_bytes - before
        wanted = [{k: row[k] for k in ("_step", *keys) if k in row} for row in wide]
        assert table.to_pylist() == (wanted if keys != ["gone"] else [])
        assert received < ROWS * WIDTH * 8 / 3

    @pytest.mark.usefixtures("wide")
    def test_a_whole_answer_to_a_later_range_is_not_taken(self, api: Api, server: DevServer):
        """The file has changed under its address, or a proxy knows no ranges at times."""
        whole = Responder(status=200, body="x")
        server.faults.add(Fault(Matcher(origin="storage", nth=2), whole))
        with pytest.raises(MalformedResponse, match="changes meanwhile"):
            api.run("ann/trials/r1").history_table(keys=["m3"])

    def test_most_columns_come_as_one(
        self, api: Api, server: DevServer, wide: list[dict[str, object]]
    ):
        keys = [f"m{key}" for key in range(0, WIDTH, 2)] + ["m1", "m3", "m5"]
        assert api.run("ann/trials/r1").history_table(keys=keys).num_rows == ROWS
        downloads = [one for one in server.requests if one.origin == "storage"]
        assert 3 <= len(downloads) <= 4

    @pytest.mark.usefixtures("wide")
    def test_a_range_that_the_file_has_no_more_is_asked_for_again(
        self, api: Api, server: DevServer
    ):
        fault = Fault(Matcher(origin="storage", nth=2), Responder.error(416))
        server.faults.add(fault)
        assert api.run("ann/trials/r1").history_table(keys=["m3"]).num_rows == ROWS

    def test_a_url_that_expires_between_two_ranges(
        self, api: Api, server: DevServer, wide: list[dict[str, object]]
    ):
        refused = Fault(Matcher(origin="storage", nth=3), Responder.error(403))
        server.faults.add(refused)
        assert api.run("ann/trials/r1").history_table(keys=["m3"]).num_rows == ROWS
        assert server.requests.operations().count("RunParquetHistory") == 2

    def test_a_range_that_was_not_asked_for_is_asked_for_again(
        self, api: Api, server: DevServer, wide: list[dict[str, object]]
    ):
        other = Responder(
            status=206, body="x" * 10, headers={"Content-Range": "bytes 4000-4009/99999"}
        )
        server.faults.add(Fault(Matcher(origin="storage", nth=2), other))
        table = api.run("ann/trials/r1").history_table(keys=["m3"])
        assert table["m3"].to_pylist() == [row["m3"] for row in wide]

    def test_a_file_whose_end_is_no_parquet(
        self, api: Api, server: DevServer, wide: list[dict[str, object]]
    ):
        server.faults.add(Fault(Matcher(origin="storage"), Responder.html(), times=None))
        with pytest.raises(MalformedResponse):
            api.run("ann/trials/r1").history_table(keys=["m3"])


class TestFileRange:
    def test_a_server_without_ranges_gives_the_whole(self):
        with TemporaryFile() as file:
            part = FileRange(file, 0, 4)
            assert part.begin(200, {})
            part.write(b"abcdefgh")
            assert (part.total, part.is_whole) == (8, True)

    def test_a_whole_file_is_no_later_range(self):
        with TemporaryFile() as file:
            assert not FileRange(file, 4, 8).begin(200, {})

    def test_a_range_lies_at_its_place(self):
        with TemporaryFile() as file:
            part = FileRange(file, 4, 8)
            assert part.headers["Range"] == "bytes=4-7"
            assert part.begin(206, {"Content-Range": "bytes 4-7/8"})
            part.write(b"efgh")
            file.seek(0)
            assert file.read() == b"\0\0\0\0efgh"

    @pytest.mark.parametrize("told", ["", "bytes */8", "bytes 0-3/8", "bytes 4-5/8", "bytes 4-7/*"])
    def test_another_range_is_refused(self, told: str):
        with TemporaryFile() as file, pytest.raises(requests.RequestException):
            FileRange(file, 4, 8).begin(206, {"Content-Range": told})

    def test_an_answer_that_is_no_file_is_not_taken(self):
        with TemporaryFile() as file:
            assert not WholeFile(file).begin(404, {})
            assert not FileRange(file, 0, 4).begin(404, {})
