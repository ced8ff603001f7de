"""Parquet exports: exact columns, or a run that stays unexported."""

from __future__ import annotations

import io
import json
import math
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import requests

from wb_ops.devserver import DevServer

SELECTION = 'parquetHistory(liveKeys: ["_step"]) {parquetUrls liveData}'


def tables(client: Any, name: str = "r1") -> list[pa.Table]:
    """The exported files in the order of their steps; the URLs come shuffled."""
    urls = client.run(f"ann/p/{name}", SELECTION)["parquetHistory"]["parquetUrls"]
    found = [pq.read_table(io.BytesIO(requests.get(url, timeout=30).content)) for url in urls]
    return sorted(found, key=lambda table: table["_step"][0].as_py())


def kinds(table: pa.Table) -> dict[str, str]:
    return {field.name: str(field.type) for field in table.schema}


def test_metrics_become_columns_of_the_narrowest_exact_type(server: DevServer, client: Any) -> None:
    histogram = {"_type": "histogram", "values": [1, 2], "bins": [0, 0.5, 1]}
    rows: list[dict[str, object]] = [
        {
            "_step": 0,
            "_timestamp": 5,
            "i": 1,
            "f": 1.5,
            "m": 1,
            "s": "x",
            "b": True,
            "h": histogram,
        },
        {"_step": 1, "_runtime": 2, "i": 2**62, "f": 2.5, "m": 0.5, "n": {"x": {"y": 1}}},
    ]
    server.seed_run("ann", "p", "r1", history=rows)
    [table] = tables(client)
    found = kinds(table)
    assert found.pop("h").startswith("struct<_type: string, values: list<")
    assert found == {
        "_step": "int64",
        "_timestamp": "double",
        "_runtime": "double",
        "i": "int64",
        "f": "double",
        "m": "double",
        "s": "string",
        "b": "bool",
        "n.x.y": "int64",
    }
    assert table["i"].to_pylist() == [1, 2**62]
    assert table["m"].to_pylist() == [1.0, 0.5]
    assert table["h"].to_pylist() == [histogram, None]


def test_special_floats_are_native(server: DevServer, client: Any) -> None:
    rows = ['{"_step": 0, "x": NaN}', '{"_step": 1, "x": Infinity}', '{"_step": 2, "x": -Infinity}']
    server.seed_run("ann", "p", "r1", history=rows)
    [table] = tables(client)
    values = table["x"].to_pylist()
    assert math.isnan(values[0])
    assert values[1:] == [math.inf, -math.inf]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (1, "one"),
        (True, 1),
        (2**53 + 1, 0.5),
        ({"_type": "t", "a": 1}, {"_type": "t", "b": 1}),
        ([1], ["a"]),
    ],
)
def test_a_change_of_type_begins_a_new_file(
    server: DevServer, client: Any, first: object, second: object
) -> None:
    rows = [{"x": first}, {"x": first}, {"x": second}]
    server.seed_run("ann", "p", "r1", history=rows)
    found = [table["x"].to_pylist() for table in tables(client)]
    assert found == [[first, first], [second]]


@pytest.mark.parametrize(
    "rows",
    [
        [{"x": 2**63}],
        [{"x": [1, "a"]}],
        [{"x": {}}],
        [{"x": "\ud800"}],
        [{"a.b": 1, "a": {"b": 2}}],
        [{"x": i if i % 2 else "s"} for i in range(40)],
    ],
)
def test_what_no_type_holds_keeps_the_run_unexported(
    server: DevServer, client: Any, rows: list[dict[str, object]]
) -> None:
    server.seed_run("ann", "p", "r1", history=rows)
    run = client.run("ann/p/r1", f"{SELECTION} history")
    assert run["parquetHistory"] == {"parquetUrls": [], "liveData": []}
    assert len(run["history"]) == len(rows)


def test_long_histories_come_in_several_files_without_loss(server: DevServer, client: Any) -> None:
    server.seed_run("ann", "p", "r1", history=[{"x": i / 7} for i in range(35)])
    found = tables(client)
    assert [table.num_rows for table in found] == [10, 10, 10, 5]
    assert [x for table in found for x in table["x"].to_pylist()] == [i / 7 for i in range(35)]


def test_a_running_run_has_no_export_and_a_partial_one_has_a_live_tail(
    server: DevServer, client: Any
) -> None:
    rows = [{"x": i} for i in range(15)]
    server.seed_run("ann", "p", "live", history=rows, state="running")
    server.seed_run("ann", "p", "half", history=rows, state="running", parquet=12)
    live = client.run("ann/p/live", SELECTION)["parquetHistory"]
    assert live == {"parquetUrls": [], "liveData": []}
    half = client.run("ann/p/half", SELECTION)["parquetHistory"]
    assert half["liveData"] == [{"_step": 12}, {"_step": 13}, {"_step": 14}]
    assert sum(table.num_rows for table in tables(client, "half")) == 12


def test_exports_can_be_off_for_a_run_or_a_server(client: Any, server: DevServer) -> None:
    server.seed_run("ann", "p", "r1", history=[{"x": 1}], parquet="off")
    assert client.run("ann/p/r1", SELECTION)["parquetHistory"]["parquetUrls"] == []
    with DevServer(parquet=False) as without:
        without.seed_run("dev", "p", "r1", history=[{"x": 1}])
        document = f'{{project(name: "p") {{run(name: "r1") {{{SELECTION}}}}}}}'
        answer = requests.post(
            f"{without.url}/graphql",
            json={"query": document},
            auth=("api", without.api_key),
            timeout=30,
        )
    assert json.dumps([]) == json.dumps(
        answer.json()["data"]["project"]["run"]["parquetHistory"]["parquetUrls"]
    )


def test_an_export_is_made_once_until_the_history_changes(server: DevServer, client: Any) -> None:
    server.seed_run("ann", "p", "r1", history=[{"x": 1}])
    first = client.run("ann/p/r1", SELECTION)["parquetHistory"]["parquetUrls"][0].split("?")[0]
    again = client.run("ann/p/r1", SELECTION)["parquetHistory"]["parquetUrls"][0].split("?")[0]
    server.append_history("ann", "p", "r1", [{"x": 2}])
    later = client.run("ann/p/r1", SELECTION)["parquetHistory"]["parquetUrls"][0].split("?")[0]
    assert first == again != later
    assert tables(client)[0].num_rows == 2
