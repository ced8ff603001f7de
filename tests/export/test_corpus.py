"""Real histories into real warehouses; every number is compared there, by SQL."""

from __future__ import annotations

import gzip
import json
import math
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import adbc_driver_postgresql.dbapi as adbc
import duckdb
import pyarrow as pa
import pytest

from wb_ops import Api, ExportRequest, Warehouse, connect, execute_export, plan_export
from wb_ops.devserver import DevServer
from wb_ops.tables.values import parse_json

REQUEST = ExportRequest("ann", "trials")
# What config and summary hold, of the JSON and of its columns.
DOCUMENTS = (
    "select run_id, cast(config->>'number' as double precision) as number, config->>'text' as text,"
    " cast(summary->>'best' as double precision) as best from runs",
    "select run_id, config__number, config__text, summary__best from runs_flat",
)


@pytest.fixture(params=["duckdb", "postgres", "parquet", "delta"])
def destination(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Warehouse]:
    if request.param != "postgres":
        yield connect(f"{request.param}:///{tmp_path / 'warehouse'}")
        return
    server = request.getfixturevalue("postgres_server")
    name = f"corpus_{uuid.uuid4().hex}"
    with adbc.connect(server, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute(f"create database {name}")
        yield connect(server.replace("/postgres?", f"/{name}?"))
        cursor.execute(f"drop database {name} with (force)")


def numbers(row: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Logged numbers by their dotted names; `_timestamp` and `_runtime` have their own columns."""
    for key, value in row.items():
        if isinstance(value, dict) and value and "_type" not in value:
            yield from numbers(value, f"{prefix}{key}.")
        elif prefix + key in ("_step", "_timestamp", "_runtime"):
            continue
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield prefix + key, float(value)


def logged(run_id: str, lines: list[str]) -> list[tuple[str, int, str, float]]:
    """What must be in the warehouse: the later value of a key and step wins."""
    steps: dict[tuple[int, str], float | None] = {}
    for number, line in enumerate(lines):
        row = parse_json(line)
        assert isinstance(row, dict)
        step = int(row.pop("_step", number))
        found = dict(numbers(row))
        # A later text takes the place of an earlier number.
        steps |= {(step, key): None for key, value in row.items() if value is not None}
        steps |= {(step, key): value for key, value in found.items()}
    return [(run_id, step, key, value) for (step, key), value in steps.items() if value is not None]


def with_number(line: str) -> str:
    """Drop a `_step` that is no integer: a text of a CSV, or one of W&B's own odd fixtures."""
    row = parse_json(line)
    if isinstance(row, dict) and type(row.get("_step", 0)) is not int:
        return json.dumps({key: value for key, value in row.items() if key != "_step"})
    return line


def messy() -> Iterator[tuple[str, list[str]]]:
    """What training scripts do at their worst."""
    wide = {f"layer{n}/{kind}": n / 7 for n in range(700) for kind in ("mean", "std")}
    yield "wide", [json.dumps({"_step": step, **wide}) for step in range(3)]
    names = ["Loss", "loss", "LOSS", "train/loss", "train.loss", "train_loss", "损失", "a b", "é"]
    yield "names", [json.dumps({"_step": 0, **{name: at for at, name in enumerate(names)}})]
    specials = [math.nan, math.inf, -math.inf, -0.0, 5e-324, 1.7976931348623157e308, 0.1 + 0.2]
    yield "floats", [json.dumps({"_step": at, "x": value}) for at, value in enumerate(specials)]
    mixed = [1, 2.5, "text", True, None, 2**60 + 1, {"deep": 3}]
    yield "mixed", [json.dumps({"_step": at, "m": value}) for at, value in enumerate(mixed)]
    yield "gaps", [json.dumps({"_step": 10**at, "x": at}) for at in range(10)]
    yield "again", [json.dumps({"_step": 5, f"k{at % 3}": at}) for at in range(9)]
    yield "empty", []


def histories(paths: list[Path]) -> Iterator[tuple[str, list[str]]]:
    for path in paths:
        lines = gzip.decompress(path.read_bytes()).decode().splitlines()
        yield path.name.split(".")[0], [with_number(line) for line in lines]
    yield from messy()


def test_every_number_is_in_the_warehouse(
    server: DevServer, api: Api, corpus_histories: list[Path], destination: Warehouse
):
    want: list[tuple[str, int, str, float]] = []
    documents: list[tuple[str, float, str, float]] = []
    for number, (run_id, lines) in enumerate(histories(corpus_histories)):
        parquet = ("auto", "off")[number % 2]
        config, summary = {"number": number / 7, "text": f"it's {run_id}"}, {"best": number / 3}
        server.seed_run(
            "ann", "trials", run_id, history=lines, parquet=parquet, config=config, summary=summary
        )
        documents.append((run_id, number / 7, f"it's {run_id}", number / 3))
        want += logged(run_id, lines)
    report = execute_export(plan_export(REQUEST, api, destination), api, destination)
    assert report.unsound == []
    got = destination.query("select run_id, _step, key, value from history_tall", "ann__trials")
    columns = ("run_id", "_step", "key", "value")
    expected = pa.table({name: [row[at] for row in want] for at, name in enumerate(columns)})
    with duckdb.connect() as connection:
        # Bits, not numbers: NaN equals itself and -0.0 differs from 0.0.
        connection.register("got", as_text(got))
        connection.register("expected", as_text(expected))
        for one, other in (("got", "expected"), ("expected", "got")):
            sql = f"select * from {one} except all select * from {other} order by all limit 5"
            assert connection.sql(sql).fetchall() == [], f"in {one} and not in {other}"
    assert got.num_rows == len(want) > 10_000
    for sql in DOCUMENTS:
        found = destination.query(sql, "ann__trials").to_pylist()
        assert sorted(tuple(row.values()) for row in found) == sorted(documents)


def as_text(table: pa.Table) -> pa.Table:
    """The same rows with each value in a form that shows every bit."""
    values = [float(value).hex() for value in table["value"].to_pylist()]
    return table.select(["run_id", "_step", "key"]).append_column("value", [values])
