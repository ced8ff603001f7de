"""Histories: every row, through files, windows, both, and after faults."""

from __future__ import annotations

import math
from typing import Any

import pytest

from wb_ops import (
    Api,
    IncompleteHistory,
    InvalidRequest,
    MalformedResponse,
    ServerUnavailable,
)
from wb_ops.devserver import DevServer, Fault, Matcher, Responder

DOWNLOAD = Matcher(origin="storage")


def rows(count: int, gap: int = 1, start: int = 0) -> list[dict[str, Any]]:
    return [
        {"_step": start + gap * index, "loss": index / 7, "n": index, "word": f"w{index % 3}"}
        for index in range(count)
    ]


def read(api: Api, run_id: str = "r1", **window: Any) -> list[dict[str, Any]]:
    return list(api.run(f"ann/trials/{run_id}").scan_history(**window))


def seed(server: DevServer, history: list[Any], **fields: Any) -> None:
    server.seed_run("ann", "trials", "r1", history=history, **fields)


@pytest.mark.parametrize("parquet", ["auto", "off", 4_000], ids=["files", "windows", "both"])
@pytest.mark.parametrize("gap", [1, 1000])
def test_every_row_comes_back(server: DevServer, api: Api, parquet: str | int, gap: int):
    logged = rows(12_000, gap)
    seed(server, logged, parquet=parquet)
    assert read(api) == logged


def test_windows_are_never_down_sampled(server: DevServer, api: Api):
    """All rows lie in a small part of the steps: each answer that is full is read in halves."""
    logged = [{"_step": 0, "n": 0}, *rows(11_000, start=10**9)]
    seed(server, logged, parquet="off")
    assert read(api) == logged
    operations = server.requests.operations()
    assert operations.count("HistoryPage") < 80


def test_a_run_that_is_still_running(server: DevServer, api: Api):
    seed(server, rows(100), state="running")
    assert read(api) == rows(100)
    server.append_history("ann", "trials", "r1", rows(5, start=100))
    assert len(read(api)) == 105


def test_special_floats_and_big_integers_stay_themselves(server: DevServer, api: Api):
    line = '{"_step": 0, "nan": NaN, "inf": Infinity, "minus": -Infinity, "big": 9007199254740993}'
    for parquet in ("auto", "off"):
        server.reset()
        seed(server, [line], parquet=parquet)
        row = read(api)[0]
        assert math.isnan(row["nan"])
        assert (row["inf"], row["minus"], row["big"]) == (math.inf, -math.inf, 9007199254740993)


def test_windows_of_steps(server: DevServer, api: Api):
    seed(server, rows(100))
    assert [row["_step"] for row in read(api, min_step=10, max_step=13)] == [10, 11, 12]


def test_keys_mean_rows_that_hold_any(server: DevServer, api: Api):
    seed(server, [{"_step": 0, "a": 1}, {"_step": 1, "b": 2}, {"_step": 2, "c": 3}])
    assert read(api, keys=["a", "b"]) == [{"_step": 0, "a": 1}, {"_step": 1, "b": 2}]


def test_arguments_that_are_none_are_refused_at_once(server: DevServer, api: Api):
    server.seed_run("ann", "trials", "r1")
    run = api.run("ann/trials/r1")
    for size in (0, -1):
        with pytest.raises(InvalidRequest, match=f"page_size={size}"):
            run.scan_history(page_size=size)
    with pytest.raises(InvalidRequest, match="require='every': give 'any' or 'all'"):
        run.scan_history(require="every")
    with pytest.raises(InvalidRequest, match="require='every'"):
        api.scan_histories([run], require="every")


def test_an_expired_url_is_asked_for_again(server: DevServer, api: Api):
    seed(server, rows(10))
    server.faults.add(Fault(Matcher(operation="RunParquetHistory"), Responder.odd("expired_urls")))
    assert read(api) == rows(10)
    assert server.requests.operations().count("RunParquetHistory") == 2


def test_urls_that_always_expire_end(server: DevServer, api: Api):
    seed(server, rows(10))
    fault = Responder.odd("expired_urls")
    server.faults.add(Fault(Matcher(operation="RunParquetHistory"), fault, times=None))
    with pytest.raises(ServerUnavailable, match="every signed URL"):
        read(api)
    assert server.requests.operations().count("RunParquetHistory") == 3


@pytest.mark.parametrize("status", [400, 401, 403, 404])
def test_a_storage_that_refuses_is_no_matter_of_the_key(server: DevServer, api: Api, status: int):
    """Stores answer so to an expired URL; what they say is not repeated, it quotes signatures."""
    seed(server, rows(10))
    told = Responder(status=status, body="<StringToSign>SECRETSIGNATURE</StringToSign>")
    server.faults.add(Fault(DOWNLOAD, told))
    assert read(api) == rows(10)
    server.faults.add(Fault(DOWNLOAD, told, times=None))
    with pytest.raises(ServerUnavailable) as caught:
        read(api)
    assert "SECRETSIGNATURE" not in str(caught.value)


@pytest.mark.parametrize("responder", [Responder.cut_body(), Responder.error(503)])
def test_a_download_that_breaks_is_repeated(server: DevServer, api: Api, responder: Responder):
    seed(server, rows(10))
    server.faults.add(Fault(DOWNLOAD, responder))
    assert read(api) == rows(10)


def test_a_file_that_is_not_whole_is_never_taken(server: DevServer, api: Api):
    seed(server, rows(10))
    server.faults.add(Fault(DOWNLOAD, Responder.truncated(100), times=None))
    with pytest.raises(MalformedResponse, match="parquet"):
        read(api)


def test_a_history_can_be_required_to_be_complete(server: DevServer, api: Api):
    seed(server, rows(10))
    run = api.run("ann/trials/r1")
    assert run.history_table(require_complete=True).num_rows == 10
    server.set_state("ann", "trials", "r1", "running")
    with pytest.raises(IncompleteHistory, match="may still log"):
        api.run("ann/trials/r1").history_table(require_complete=True)


def test_a_text_that_looks_like_a_float_stays_a_text(server: DevServer, api: Api):
    logged = [{"_step": 0, "word": "NaN"}, {"_step": 1, "word": "Infinity"}]
    for parquet in ("auto", "off"):
        server.reset()
        seed(server, logged, parquet=parquet)
        assert read(api) == logged


def test_a_run_without_history_has_no_rows(server: DevServer, api: Api):
    seed(server, [])
    table = api.run("ann/trials/r1").history_table()
    assert table.num_rows == 0


def test_sampled_history_is_the_servers(server: DevServer, api: Api):
    seed(server, rows(1_000), events=[{"_timestamp": 1.0, "system.cpu": 3.5}])
    run = api.run("ann/trials/r1")
    assert len(run.history(samples=50)) <= 51
    assert list(run.history(samples=10, keys=["loss"], pandas=False)[0]) == ["_step", "loss"]
    assert run.history(stream="system", pandas=False)[0]["system.cpu"] == 3.5
