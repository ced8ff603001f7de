"""What comes back is what was logged, whatever files, rows and documents look like."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from wb_ops import Api
from wb_ops.devserver import DevServer, Fault, Matcher, Responder

SOURCES = Matcher(operation="RunParquetHistory")
RUNS = Matcher(operation="Runs")
HISTOGRAM = {"_type": "histogram", "values": [1, 2], "bins": [0.0, 0.5, 1.0]}

Serve = Callable[..., None]


@pytest.fixture
def storage() -> Iterator[tuple[str, dict[str, bytes]]]:
    """A storage of exported files, by name."""
    held: dict[str, bytes] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = held[self.path]
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """No word on stderr."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as serving:
        thread = threading.Thread(target=serving.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{serving.server_address[1]}", held
        serving.shutdown()
        thread.join()


@pytest.fixture
def exports(server: DevServer, storage: tuple[str, dict[str, bytes]]) -> Serve:
    """Make run ann/trials/r1 answer with these tables as its exported files, in this order."""
    url, held = storage

    def serve(*tables: pa.Table, live: tuple[dict[str, Any], ...] = (), keys: Any = None) -> None:
        for number, table in enumerate(tables):
            content = BytesIO()
            pq.write_table(table, content)
            held[f"/{number}"] = content.getvalue()
        server.seed_run("ann", "trials", "r1", history=live, parquet="off")
        steps = [{"_step": row["_step"]} for row in live]
        parquet = {"parquetUrls": [f"{url}/{at}" for at in range(len(tables))], "liveData": steps}
        run = {"historyLineCount": 9, "historyKeys": keys, "parquetHistory": parquet}
        body = json.dumps({"data": {"project": {"run": run}}})
        server.faults.add(Fault(SOURCES, Responder(status=200, body=body), times=None))

    return serve


def table(**columns: Any) -> pa.Table:
    return pa.table({name.replace("step", "_step"): values for name, values in columns.items()})


def read(api: Api, **chosen: Any) -> list[dict[str, Any]]:
    return list(api.run("ann/trials/r1").scan_history(**chosen))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (pa.array([True, False]), pa.array([0.5, 1.5])),
        (pa.array([1, 2**53 + 1]), pa.array([0.5, math.inf])),
        (pa.array(["a", "NaN"]), pa.array([1, -(2**62)])),
        (pa.array([2**64 - 1, 1], pa.uint64()), pa.array([-1, -(2**63)])),
        (pa.array([1.5, None], pa.float32()), pa.array(["x", None])),
        (pa.array([HISTOGRAM, HISTOGRAM]), pa.array([1.0, 2.0])),
        (pa.array([None, None], pa.null()), pa.array([True, None])),
    ],
    ids=["bool-double", "int-double", "text-int", "uint-int", "float-text", "struct-double",
         "null-bool"],
)  # fmt: skip
def test_a_column_may_change_its_type_between_files(
    api: Api, exports: Serve, first: pa.Array, second: pa.Array
):
    exports(table(step=[0, 1], x=first), table(step=[2, 3], x=second))
    logged = [*first.to_pylist(), *second.to_pylist()]
    expected = [
        {"_step": step} | ({} if value is None else {"x": value})
        for step, value in enumerate(logged)
    ]
    assert read(api) == expected
    types = [type(row.get("x")) for row in read(api)]
    assert types == [type(row.get("x")) for row in expected]


@pytest.mark.parametrize(
    "column",
    [
        pa.array([HISTOGRAM]),
        pa.array([json.dumps(HISTOGRAM)]),
        pa.array([json.dumps(HISTOGRAM)], pa.json_()),
        pa.array([json.dumps(HISTOGRAM).encode()], pa.large_binary()).cast(pa.large_utf8()),
    ],
    ids=["struct", "text", "json", "large text"],
)
def test_a_histogram_is_one_in_every_form(api: Api, exports: Serve, column: pa.Array):
    exports(table(step=[0], x=column))
    assert read(api) == [{"_step": 0, "x": HISTOGRAM}]


def test_a_map_is_a_dict(api: Api, exports: Serve):
    column = pa.array([[("a", 1.5), ("b", None)]], pa.map_(pa.string(), pa.float64()))
    exports(table(step=[0], x=column))
    assert read(api) == [{"_step": 0, "x": {"a": 1.5, "b": None}}]


def test_urls_come_in_any_order_and_files_overlap(api: Api, exports: Serve):
    """Of one step and key the file that starts later counts, and live rows count most."""
    exports(
        table(step=[4, 5], x=[40.0, 50.0], y=["new", None]),
        table(step=[0, 1], x=[0.0, 1.0]),
        table(step=[1, 4], x=[10.0, 4.0], z=[1, 2]),
        live=({"_step": 5, "y": "live"}, {"_step": 6, "x": 6.0}),
    )
    assert read(api) == [
        {"_step": 0, "x": 0.0},
        {"_step": 1, "x": 10.0, "z": 1},
        {"_step": 4, "x": 40.0, "y": "new", "z": 2},
        {"_step": 5, "x": 50.0, "y": "live"},
        {"_step": 6, "x": 6.0},
    ]


@pytest.mark.parametrize("keys", [None, "{}", {}, {"lastStep": None}, '{"lastStep": 4}'])
def test_unknown_or_late_history_keys_hide_no_row(api: Api, exports: Serve, keys: Any):
    live = tuple({"_step": step, "x": step / 3} for step in (3, 5, 7))
    exports(live=live, keys=keys)
    assert read(api) == list(live)


@pytest.mark.parametrize("parquet", ["auto", "off", 2])
def test_a_step_that_was_logged_twice_is_one_row(server: DevServer, api: Api, parquet: str | int):
    """With a partial export, the second half of step 1 is live."""
    logged = [{"_step": 0, "x": 1.5}, {"_step": 1, "x": 2.5, "y": 1}, {"_step": 1, "y": 2},
              {"_step": 2, "x": 3.5}]  # fmt: skip
    server.seed_run("ann", "trials", "r1", history=logged, parquet=parquet)
    assert read(api) == [
        {"_step": 0, "x": 1.5}, {"_step": 1, "x": 2.5, "y": 2}, {"_step": 2, "x": 3.5},
    ]  # fmt: skip


@pytest.mark.parametrize("parquet", ["auto", "off"])
def test_control_characters_come_back(server: DevServer, api: Api, parquet: str):
    """W&B's own logger writes them as they are, which is no strict JSON."""
    line = '{"_step": 0, "text": "a\x01\tb\\u0000\x7f", "k\x02": 1}'
    server.seed_run("ann", "trials", "r1", history=[line], parquet=parquet)
    assert read(api) == [{"_step": 0, "text": "a\x01\tb\x00\x7f", "k\x02": 1}]


def test_both_forms_of_special_floats_stay_what_they_are(server: DevServer, api: Api):
    text = '{"bare": NaN, "inf": -Infinity, "text": "NaN", "big": 9007199254740993, "deep": [NaN]}'
    wrapped = {"x": {"value": json.loads(text)}}
    server.seed_run("ann", "trials", "r1", summary=text, raw_config=json.dumps(wrapped))
    run = api.run("ann/trials/r1")
    for found in (dict(run.summary), run.config["x"]):
        assert math.isnan(found["bare"])
        assert math.isnan(found["deep"][0])
        assert (found["inf"], found["text"], found["big"]) == (-math.inf, "NaN", 2**53 + 1)


def test_writing_config_keeps_what_is_wandbs(server: DevServer, api: Api):
    own = '{"value": {"t": {"1": [1, 5]}, "m": [], "cli_version": "0.31.0"}}'
    raw = f'{{"_wandb": {own}, "lr": {{"value": 1.0, "desc": "rate"}}, "x": {{"value": 1e400}}}}'
    server.seed_run("ann", "trials", "r1", raw_config=raw)
    run = api.run("ann/trials/r1")
    run.config["new"] = {"value": 1}
    run.update()
    sent = next(one for one in server.requests if one.operation == "UpsertBucket")
    assert str(sent.variables["config0"]).startswith(raw.removesuffix("}"))
    again = api.run("ann/trials/r1")
    assert again.config == {"lr": 1.0, "x": math.inf, "new": {"value": 1}}
    assert again.rawconfig["_wandb"]["cli_version"] == "0.31.0"


def test_a_node_of_the_future_is_a_run(server: DevServer, api: Api):
    node = {
        "id": "x", "name": "r1", "state": "dreaming", "futureField": 1, "user": None, "tags": None,
        "config": None, "summaryMetrics": None, "historyKeys": None, "createdAt": None,
    }  # fmt: skip
    page = {"edges": [{"node": node, "cursor": "c"}, None], "pageInfo": {"hasNextPage": False}}
    body = json.dumps({"data": {"project": {"runCount": 1, "runs": page}}})
    server.faults.add(Fault(RUNS, Responder(status=200, body=body), times=None))
    (run,) = api.runs("ann/trials")
    assert (run.state, run.futureField, run.future_field) == ("dreaming", 1, 1)
    assert (run.user, run.tags, run.config, dict(run.summary)) == (None, [], {}, {})
    assert (run.created_at, run.lastHistoryStep, run.history_line_count) == (None, -1, 0)
    assert api.runs("ann/trials").to_arrow()["state"].to_pylist() == ["dreaming"]
    with pytest.raises(AttributeError, match="nothing"):
        _ = run.nothing


def listed_while(server: DevServer, api: Api, act: Callable[[], None]) -> list[str]:
    """List seven runs in pages of two; `act` comes before the second page."""
    server.seed_runs(
        {"entity": "ann", "project": "trials", "run_id": f"r{day}",
         "created_at": f"2026-01-0{day}T00:00:00"}
        for day in range(1, 8)
    )  # fmt: skip
    second = Matcher(operation="Runs", nth=2)
    server.faults.add(Fault(second, Responder(status=None), action=act))
    return [run.id for run in api.runs("ann/trials", order="+created_at", per_page=2)]


def test_a_run_deleted_meanwhile_hides_no_other(server: DevServer, api: Api):
    """Cursors count positions: without r1, r3 moves to the page that was read already."""
    found = listed_while(server, api, lambda: server.delete_run("ann", "trials", "r1"))
    assert sorted(found) == [f"r{day}" for day in range(1, 8)]


def test_a_run_made_or_edited_meanwhile_is_listed_once(server: DevServer, api: Api):
    def act() -> None:
        server.seed_run("ann", "trials", "late", created_at="2025-01-01T00:00:00")
        server.edit_run("ann", "trials", "r5", notes="edited")

    found = listed_while(server, api, act)
    assert sorted(set(found) - {"late"}) == [f"r{day}" for day in range(1, 8)]
    assert len(found) == len(set(found))


def test_runs_that_go_faster_than_they_are_listed_are_said_so(
    server: DevServer, api: Api, caplog: pytest.LogCaptureFixture
):
    def act() -> None:
        server.seed_run("ann", "trials", "z", created_at="2027-01-01T00:00:00")

    server.seed_run("ann", "trials", "z", created_at="2027-01-01T00:00:00")
    for nth in range(2, 12):
        drop = Fault(
            Matcher(operation="Runs", nth=nth), Responder(status=None),
            action=(lambda: server.delete_run("ann", "trials", "z")) if nth % 2 == 0 else act,
        )  # fmt: skip
        server.faults.add(drop)
    listed_while(server, api, lambda: None)
    assert "faster than they are listed" in caplog.text
