"""Answers that no server should give, and may: the right value, or one of our errors."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from io import BytesIO
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from wb_ops import (
    Api,
    CommError,
    IncompleteHistory,
    InvalidRequest,
    MalformedResponse,
    NotFound,
    OutcomeUnknown,
    PermissionDenied,
    RequestTimeout,
    ServerUnavailable,
)
from wb_ops.client import live_rows, windows
from wb_ops.client.comparison import same_json
from wb_ops.client.live_rows import LiveRows
from wb_ops.client.pacing import asked_wait_s
from wb_ops.client.parts import file_pieces
from wb_ops.client.raw import RawHistory
from wb_ops.client.selection import EVERYTHING
from wb_ops.client.writing import Change, write_changes
from wb_ops.devserver import DevServer, Fault, Matcher, Responder
from wb_ops.settings import Settings

SOURCES = "RunParquetHistory"


@pytest.fixture
def once(server: DevServer) -> Api:
    """An Api that tries nothing twice."""
    return Api(settings=Settings(server.api_key, server.url, max_attempts=1))


def answer(server: DevServer, operation: str, run: Any, times: int | None = None) -> None:
    """Answer an operation with fields of the run."""
    body = json.dumps({"data": {"project": {"run": run}}})
    respond = Responder(status=200, body=body)
    server.faults.add(Fault(Matcher(operation=operation), respond, times=times))


ROWS = [{"_step": step, "x": step / 2} for step in range(6)]


class TestHistories:
    @pytest.fixture(autouse=True)
    def live(self, server: DevServer) -> None:
        server.seed_run("ann", "trials", "r1", history=ROWS, parquet="off")

    def read(self, api: Api) -> list[dict[str, Any]]:
        return api.run("ann/trials/r1").history_table().to_pylist()

    def test_a_server_without_exports_is_asked_for_windows_from_then_on(
        self, server: DevServer, api: Api
    ):
        refusal = Responder.error(400, 'Cannot query field "parquetHistory" on type "Run".')
        server.faults.add(Fault(Matcher(operation=SOURCES), refusal, times=None))
        assert self.read(api) == self.read(api) == ROWS
        operations = server.requests.operations()
        assert (operations.count(SOURCES), operations.count("RunHistoryKeys")) == (1, 2)

    def test_a_server_without_exports_may_have_rows_after_its_last_step(
        self, server: DevServer, api: Api
    ):
        refusal = Responder.error(400, 'Cannot query field "parquetHistory" on type "Run".')
        server.faults.add(Fault(Matcher(operation=SOURCES), refusal, times=None))
        late = {"historyLineCount": 6, "historyKeys": {"lastStep": 2}}
        answer(server, "RunHistoryKeys", late)
        assert self.read(api) == ROWS
        assert server.requests.operations().count("HistoryPage") == 1
        run = api.run("ann/trials/r1")
        assert list(run.scan_history(min_step=4, max_step=5)) == [ROWS[4]]

    def test_where_the_end_is_unknown_no_window_is_asked_for_in_vain(
        self, server: DevServer, api: Api
    ):
        refusal = Responder.error(400, 'Cannot query field "parquetHistory" on type "Run".')
        server.faults.add(Fault(Matcher(operation=SOURCES), refusal, times=None))
        answer(server, "RunHistoryKeys", {"historyLineCount": 10**6, "historyKeys": None})
        assert self.read(api) == ROWS
        assert server.requests.operations().count("HistoryPage") == 1

    def test_where_the_end_is_unknown_a_full_window_is_halved(
        self, server: DevServer, api: Api, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr(windows, "SAMPLES", 3)
        monkeypatch.setattr(windows, "ROWS_PER_WINDOW", 2)
        refusal = Responder.error(400, 'Cannot query field "parquetHistory" on type "Run".')
        server.faults.add(Fault(Matcher(operation=SOURCES), refusal, times=None))
        answer(server, "RunHistoryKeys", {"historyLineCount": 6, "historyKeys": None})
        assert self.read(api) == ROWS

    def test_a_server_that_answers_for_no_window_is_found_out(self, server: DevServer, once: Api):
        exports = {"parquetUrls": [], "liveData": [{"_step": 0}]}
        answer(server, SOURCES, {"historyKeys": {"lastStep": 10**6}, "parquetHistory": exports})
        page = Matcher(operation="HistoryPage")
        server.faults.add(Fault(page, Responder.error(500), times=3000))
        with pytest.raises(ServerUnavailable):
            self.read(once)
        assert server.requests.operations().count("HistoryPage") < 1000

    def test_windows_are_not_halved_for_ever(
        self, server: DevServer, once: Api, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr(windows, "MAX_HALVING_S", 0.0)
        server.faults.add(Fault(Matcher(operation="HistoryPage"), Responder.error(500)))
        with pytest.raises(ServerUnavailable):
            self.read(once)

    def test_another_refusal_says_nothing_about_exports(self, server: DevServer, api: Api):
        server.faults.add(Fault(Matcher(operation=SOURCES), Responder.error(400, "no such thing")))
        with pytest.raises(InvalidRequest, match="no such thing"):
            self.read(api)
        assert api.reader.has_parquet

    @pytest.mark.parametrize(
        ("rows", "text"),
        [(["{"], "no JSON"), (['{"x": 1}'], "no _step"), (['{"_step": null, "x": 1}'], "no _step")],
    )
    def test_rows_that_are_none(self, server: DevServer, once: Api, rows: list[str], text: str):
        answer(server, "HistoryPage", {"history": rows})
        with pytest.raises(MalformedResponse, match=text):
            self.read(once)

    def test_a_live_row_that_is_no_json(self, server: DevServer, once: Api):
        exports = {"parquetUrls": [], "liveData": ["{"]}
        answer(server, SOURCES, {"historyLineCount": 1, "parquetHistory": exports})
        with pytest.raises(MalformedResponse, match="live row"):
            self.read(once)

    def test_rows_of_another_window_are_left_out(self, server: DevServer, api: Api):
        exports = {"parquetUrls": [], "liveData": [{"_step": 0}]}
        answer(server, SOURCES, {"historyKeys": {"lastStep": 5}, "parquetHistory": exports})
        rows = [json.dumps({"_step": step, "x": 1.5}) for step in (-3, 2, 10**6)]
        answer(server, "HistoryPage", {"history": rows})
        assert self.read(api) == [{"_step": 2, "x": 1.5}]

    def test_whole_floats_are_steps(self, server: DevServer, api: Api):
        answer(server, "HistoryPage", {"history": ['{"_step": 1.0, "x": 1}', '{"_step": 2.0}']})
        assert [row["_step"] for row in self.read(api)] == [1, 2]

    def test_more_rows_at_a_step_than_an_answer_holds(
        self, server: DevServer, once: Api, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr(windows, "SAMPLES", 3)
        server.append_history("ann", "trials", "r1", [{"_step": 5, "y": n} for n in range(4)])
        with pytest.raises(MalformedResponse, match="3 or more rows at step 5"):
            self.read(once)

    def test_one_window_that_fails_ends_the_others(
        self, server: DevServer, once: Api, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr(windows, "ROWS_PER_WINDOW", 1)
        refused = Matcher(operation="HistoryPage", nth=1)
        server.faults.add(Fault(refused, Responder.error(403, "permission denied")))
        with pytest.raises(PermissionDenied):
            self.read(once)

    def test_counts_that_do_not_add_up(self, server: DevServer, api: Api):
        exports = {"parquetUrls": [], "liveData": [{"_step": 0}]}
        fields = {"historyLineCount": 9, "historyKeys": {"lastStep": 5}, "parquetHistory": exports}
        answer(server, SOURCES, fields)
        with pytest.raises(IncompleteHistory, match="6 rows read, the server counts 9"):
            api.run("ann/trials/r1").history_table(require_complete=True)

    def test_a_system_stream_has_no_keys(self, api: Api):
        with pytest.raises(InvalidRequest, match="leave keys out"):
            api.run("ann/trials/r1").history(keys=["x"], stream="system")

    def test_no_request_begins_after_the_time_for_all(self, server: DevServer, api: Api):
        run = api.run("ann/trials/r1")
        api.transport.end_after(0)
        with pytest.raises(RequestTimeout, match="all requests together"):
            run.history_table()
        assert server.requests.operations() == ["Run"]


def parquet(steps: pa.Array, **options: Any) -> BytesIO:
    file = BytesIO()
    pq.write_table(pa.table({"_step": steps, "x": [1.5] * len(steps)}), file, **options)
    return file


class TestFilesOfAHistory:
    @pytest.mark.parametrize(
        "steps",
        [pa.array(["a"]), pa.array([1, None]), pa.array([float("inf")]), pa.array([float("nan")])],
        ids=["text", "null", "infinite", "nan"],
    )
    @pytest.mark.parametrize("has_statistics", [True, False])
    def test_steps_that_are_none(self, steps: pa.Array, has_statistics: bool):
        with pytest.raises(MalformedResponse, match="p"):
            file_pieces(parquet(steps, write_statistics=has_statistics), "p")

    @pytest.mark.parametrize("read", [RawHistory.merged, lambda raw: list(raw.iter_merged())])
    def test_steps_between_steps(self, read: Callable[[RawHistory], object]):
        pieces = file_pieces(parquet(pa.array([1.5])), "p")
        with pytest.raises(MalformedResponse, match=r"rows of p cannot be read"):
            read(RawHistory("p", tuple(pieces), EVERYTHING, "parquet", 0))

    def test_a_row_group_without_rows(self):
        file = BytesIO()
        schema = pa.schema([("_step", pa.int64())])
        with pq.ParquetWriter(file, schema) as writer:
            for steps in ([], [1, 2]):
                writer.write_table(pa.table([pa.array(steps, pa.int64())], schema=schema))
        assert [(piece.first_step, piece.rows) for piece in file_pieces(file, "p")] == [(1, 2)]


@pytest.mark.parametrize("rows", [['{"x": "\ud800"}'], ['{"x": 1}', '{"x": 2.5}']])
def test_live_rows_that_went_to_disk_are_the_same(monkeypatch: pytest.MonkeyPatch, rows: list[str]):
    monkeypatch.setattr(live_rows, "MAX_HELD_BYTES", 0)
    monkeypatch.setattr(live_rows, "MAX_PARSED_BYTES", 0)
    live = LiveRows()
    part = live.add(rows, None)
    assert live.read(part) == rows
    assert sum(table.num_rows for table in live.tables([part])) == len(rows)
    live.close()


class TestRuns:
    @pytest.fixture(autouse=True)
    def seeded(self, server: DevServer) -> None:
        server.seed_run("ann", "trials", "r1", summary={"a": 1}, raw_config='{"lr": 1}')

    def test_a_time_that_is_none_names_the_run(self, server: DevServer, api: Api):
        answer(server, "Run", {"name": "r1", "heartbeatAt": "yesterday", "createdAt": 3})
        run = api.run("ann/trials/r1")
        for read in (lambda: run.heartbeat_at, lambda: run.created_at):
            with pytest.raises(MalformedResponse, match="ann/trials/r1 is no time"):
                read()

    def test_metadata_that_are_no_json(self, server: DevServer, api: Api):
        server.seed_run("ann", "trials", "cut", files={"wandb-metadata.json": "{"})
        with pytest.raises(MalformedResponse, match="metadata of run ann/trials/cut"):
            _ = api.run("ann/trials/cut").metadata

    def test_a_summary_that_is_no_json(self, server: DevServer, api: Api):
        answer(server, "Run", {"name": "r1", "summaryMetrics": "["})
        with pytest.raises(MalformedResponse, match="summary"):
            _ = api.run("ann/trials/r1").summary

    def test_a_table_of_runs_names_the_one_that_breaks_it(self, server: DevServer, api: Api):
        runs = api.runs("ann/trials")
        assert len(runs) == len(runs.to_arrow()) == 1
        assert len(runs[0].summary) == 1
        server.edit_run("ann", "trials", "r1", summary="[1]")
        with pytest.raises(MalformedResponse, match="run 'r1'"):
            api.runs("ann/trials").to_arrow()
        with pytest.raises(InvalidRequest, match="format='csv'"):
            runs.histories(format="csv")

    def test_a_page_may_name_its_end_by_the_last_edge_alone(self, server: DevServer, api: Api):
        node = {"name": "r0", "id": "x", "state": "finished"}
        page = {"edges": [{"node": node, "cursor": "c0"}], "pageInfo": {"hasNextPage": True}}
        body = json.dumps({"data": {"project": {"runCount": 2, "runs": page}}})
        first = Matcher(operation="Runs", nth=1)
        server.faults.add(Fault(first, Responder(status=200, body=body)))
        with pytest.raises(InvalidRequest, match="cursor"):
            list(api.runs("ann/trials"))
        assert server.requests[-1].variables["cursor"] == "c0"

    def test_a_list_of_files_that_cannot_be_given(self, server: DevServer, once: Api):
        failing = Responder.error(500, "internal error")
        server.faults.add(Fault(Matcher(operation="RunFiles"), failing, times=None))
        with pytest.raises(ServerUnavailable, match="internal error"):
            list(once.run("ann/trials/r1").files(per_page=2))
        sizes = [one.variables["fileLimit"] for one in server.requests if "fileLimit" in
                 one.variables]  # fmt: skip
        assert sizes == [2, 1]

    def test_a_run_by_its_id_that_cannot_be_given(self, server: DevServer, once: Api):
        failing = Responder.error(500, "internal error")
        server.faults.add(Fault(Matcher(operation="Runs"), failing, times=None))
        with pytest.raises(ServerUnavailable, match="internal error"):
            once.source("ann/trials").fetch_nodes(["r1"])

    @pytest.mark.parametrize("url", ["signed", None])
    def test_a_file_whose_address_is_gone(self, server: DevServer, once: Api, url: str | None):
        address = f"{server.storage_url}/gone?signature=x" if url else None
        node = {"name": "a.txt", "sizeBytes": 4, "url": None, "directUrl": address}
        files = {"edges": [{"node": node}], "pageInfo": {"hasNextPage": False}}
        answer(server, "RunFiles", {"files": files})
        file = once.run("ann/trials/r1").file("a.txt")
        with pytest.raises(ServerUnavailable if url else NotFound, match=r"r1/a\.txt"):
            file.read()

    def test_errors_that_are_no_list(self, server: DevServer, api: Api):
        body = '{"errors": {"message": "permission denied"}}'
        server.faults.add(Fault(Matcher(operation="Run"), Responder(status=200, body=body)))
        with pytest.raises(PermissionDenied):
            api.run("ann/trials/r1")

    def test_filters_that_no_json_holds(self, api: Api):
        for filters in ({"config.x": b"a"}, {1: 2}):
            with pytest.raises(InvalidRequest):
                list(api.runs("ann/trials", filters))

    def test_overrides_that_nobody_knows(self):
        with pytest.raises(InvalidRequest, match=r"overrides has \['url'\]"):
            Api({"url": "https://wandb.ai"}, api_key="k" * 40)


class TestWrites:
    @pytest.fixture(autouse=True)
    def seeded(self, server: DevServer) -> None:
        server.seed_run("ann", "trials", "r1", summary={"a": 1}, raw_config='{"lr": 1}')

    def test_a_failing_server_leaves_the_outcome_unknown(self, server: DevServer, api: Api):
        server.faults.add(Fault(Matcher(operation="UpsertBucket"), Responder.error(502)))
        with pytest.raises(OutcomeUnknown, match="does not hold what was written: mine"):
            api.run("ann/trials/r1").summary.update({"mine": 1})
        assert server.requests.operations().count("UpsertBucket") == 1

    def test_a_run_that_is_read_only(self, server: DevServer, api: Api):
        server.edit_run("ann", "trials", "r1", read_only=True)
        with pytest.raises(PermissionDenied, match="r1 is read-only"):
            api.run("ann/trials/r1").summary.update({"mine": 1})
        assert "UpsertBucket" not in server.requests.operations()

    def test_a_bare_member_of_the_config_is_wrapped(self, api: Api):
        run = api.run("ann/trials/r1")
        run.config["lr"] = 2
        run.update()
        assert api.run("ann/trials/r1").config == {"lr": 2}

    @pytest.mark.parametrize("deletes", [False, True])
    def test_what_is_read_back_is_no_document(self, server: DevServer, api: Api, deletes: bool):
        broken = {"name": "r1", "id": "x", "summaryMetrics": "[", "config": "{}"}
        page = {"edges": [{"node": broken}], "pageInfo": {"hasNextPage": False}}
        body = json.dumps({"data": {"project": {"runCount": 1, "runs": page}}})
        server.faults.add(Fault(Matcher(operation="Runs"), Responder(status=200, body=body)))
        run = api.run("ann/trials/r1")
        if deletes:
            del run.summary["a"]
        else:
            run.summary["mine"] = 1
        with pytest.raises(OutcomeUnknown, match=r"what was written: (a|mine)"):
            run.summary.update()

    def test_what_was_written_may_no_longer_be_read(self, server: DevServer, api: Api):
        server.faults.add(Fault(Matcher(operation="Runs"), Responder.error(403)))
        with pytest.raises(PermissionDenied):
            api.run("ann/trials/r1").summary.update({"mine": 1})

    def test_a_run_that_is_gone_is_not_written_to(self, server: DevServer, api: Api):
        source = api.source("ann/trials")
        change = Change("r1", summary={"mine": "1"})
        (written,) = write_changes(source.transport, source, [change], {})
        assert written.node is None
        assert "UpsertBucket" not in server.requests.operations()

    def test_a_value_without_a_json_form(self, server: DevServer, api: Api):
        run = api.run("ann/trials/r1")
        run.summary.update({"arrow": pa.scalar(3), "day": datetime(2026, 1, 2, tzinfo=UTC)})
        assert dict(run.summary) == {"a": 1, "arrow": 3, "day": "2026-01-02T00:00:00+00:00"}
        with pytest.raises(TypeError, match="object has no JSON form"):
            run.summary.update({"mine": object()})

    @pytest.mark.parametrize(
        ("one", "other", "is_same"),
        [("[1.0, [2]]", "[1, [2.0]]", True), ("[1, 2]", "[2, 1]", False), ("[]", "{}", False)],
    )
    def test_lists_are_compared_by_their_members(self, one: str, other: str, is_same: bool):
        assert same_json(one, other) is is_same


def test_a_wait_until_a_time_without_zone_is_until_utc():
    later = datetime.now(UTC) + timedelta(hours=1)
    text = format_datetime(later).replace("+0000", "-0000")
    assert 3500 < (asked_wait_s(429, {"Retry-After": text}) or 0) <= 3600


def test_a_message_of_an_error_is_not_a_page(server: DevServer, once: Api):
    server.faults.add(Fault(Matcher(operation="Run"), Responder.html(502)))
    with pytest.raises(CommError) as caught:
        once.run("ann/trials/r1")
    assert "html" not in str(caught.value).lower()
