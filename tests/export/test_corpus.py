"""Real runs into real warehouses; every value is compared by SQL that is not ours."""

from __future__ import annotations

import gzip
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import gettempdir
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from logged_rows import dotted, with_number

from wb_ops import Api, ExportRequest, Warehouse, connect, execute_export, plan_export
from wb_ops.devserver import DevServer
from wb_ops.tables.values import parse_json

# Run, step or name of the field, JSON text, places of special floats in it.
Documents = list[tuple[str, str, str, list[str]]]
# Exploding documents costs more than comparing numbers: every so many steps and runs; 1 for all.
EXTRA_STRIDE = int(os.environ.get("WB_OPS_CORPUS", "4"))
ODD = {"x/y~z": [math.nan, {"": -math.inf}], "NaN": "NaN", "big": 2**70, "one": 1.0, "e": 1e22,
       "empty": [{}, [], ""], "ünï": "损失 \t\"", "deep": {"a.b": {"a": None}}}  # fmt: skip
REQUEST = ExportRequest("ann", "trials")
# What config and summary hold, of the JSON and of its columns.
DOCUMENTS = (
    "select run_id, cast(config->>'number' as double precision) as number, config->>'text' as text,"
    " cast(summary->>'best' as double precision) as best from runs",
    "select run_id, config__number, config__text, summary__best from runs_flat",
)
# Every leaf and every container of some documents, by its path; numbers by their value.
LEAVES = """
    create table {name} as select run_id, step, fullkey, type,
        case when type = 'DOUBLE' then cast(cast(atom as double) as varchar)
             else cast(atom as varchar) end as value
    from {documents}, json_tree({documents}.document) as leaf
"""
# json_tree takes time by the square of a document's size: longer ones are compared when parsed.
LONGEST = 30_000


@pytest.fixture(params=["duckdb", "postgres", "parquet", "delta"])
def destination(request: pytest.FixtureRequest, tmp_path: Path) -> Warehouse:
    if request.param != "postgres":
        return connect(f"{request.param}:///{tmp_path / 'warehouse'}")
    return connect(request.getfixturevalue("new_database")())


def numbers(row: dict[str, Any]) -> dict[str, float]:
    """Logged numbers by their dotted names; `_timestamp` and `_runtime` have their own columns."""
    return {
        key: float(value)
        for key, value in dotted(row).items()
        if key not in ("_step", "_timestamp", "_runtime")
        and isinstance(value, int | float)
        and not isinstance(value, bool)
    }


def logged(run_id: str, lines: list[str]) -> list[tuple[str, int, str, float]]:
    """What must be in the warehouse: the later value of a key and step wins."""
    steps: dict[tuple[int, str], float | None] = {}
    for number, line in enumerate(lines):
        row = parse_json(line)
        assert isinstance(row, dict)
        step = int(row.pop("_step", number))
        # A later text takes the place of an earlier number.
        steps |= {(step, key): None for key, value in row.items() if value is not None}
        steps |= {(step, key): value for key, value in numbers(row).items()}
    return [(run_id, step, key, value) for (step, key), value in steps.items() if value is not None]


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


def test_every_logged_value_is_in_the_warehouse(
    server: DevServer, api: Api, corpus_histories: list[Path], destination: Warehouse
):
    others: Documents = []
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
        others += extras(run_id, lines)
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
    extra = destination.query(
        "select run_id, cast(_step as varchar) as step, cast(_extra as varchar) as document, "
        "cast(_floats as varchar) as floats from history where _extra is not null "
        f"and _step % {EXTRA_STRIDE} = 0", "ann__trials",
    )  # fmt: skip
    assert_same_documents(extra, others)
    assert others
    for sql in DOCUMENTS:
        found = destination.query(sql, "ann__trials").to_pylist()
        assert sorted(tuple(row.values()) for row in found) == sorted(documents)


def test_every_config_and_summary_is_in_the_warehouse(
    server: DevServer, api: Api, corpus_runs: list[dict[str, Any]], destination: Warehouse
):
    want: Documents = []
    runs = [*corpus_runs[::EXTRA_STRIDE], {"config": {"odd": {"value": ODD}}, "summary": ODD}]
    for number, run in enumerate(runs):
        run_id, config, summary = f"r{number}", run["config"] or {}, run["summary"] or {}
        server.seed_run(
            "ann", "trials", run_id, raw_config=json.dumps(config), summary=json.dumps(summary)
        )
        own = {
            key: member["value"] if isinstance(member, dict) and "value" in member else member
            for key, member in config.items()
            if key not in ("_wandb", "wandb_version")
        }
        want += [(run_id, "config", *strict(own, "/config"))]
        want += [(run_id, "summary", *strict(summary, "/summary"))]
    report = execute_export(plan_export(REQUEST, api, destination), api, destination)
    assert report.runs == len(runs) > 50
    for name in ("config", "summary"):
        got = destination.query(
            f"select run_id, '{name}' as step, cast({name} as varchar) as document, "
            "cast(_floats as varchar) as floats from runs", "ann__trials",
        )  # fmt: skip
        assert_same_documents(got, [one for one in want if one[1] == name], f"/{name}")


def extras(run_id: str, lines: list[str]) -> Documents:
    """What has no exact place in a column of numbers: everything else, and integers past 2^53."""
    steps: dict[int, dict[str, Any]] = {}
    for number, line in enumerate(lines):
        row = parse_json(line)
        assert isinstance(row, dict)
        steps.setdefault(int(row.pop("_step", number)), {}).update(dotted(row))
    documents = []
    for step, cells in steps.items():
        rest = {key: value for key, value in cells.items() if not is_exact(value)}
        if rest and step % EXTRA_STRIDE == 0:
            documents.append((run_id, str(step), *strict(rest, "/_extra")))
    return documents


def is_exact(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and (isinstance(value, float) or int(float(value)) == value)


def strict(value: Any, place: str) -> tuple[str, list[str]]:
    """The document as strict JSON, and the places of texts that stand for special floats."""
    places: list[str] = []

    def plain(value: Any, place: str) -> Any:
        if isinstance(value, float) and not math.isfinite(value):
            places.append(place)
            return {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}[str(value)]
        if isinstance(value, dict):
            return {
                key: plain(member, f"{place}/{key.replace('~', '~0').replace('/', '~1')}")
                for key, member in value.items()
            }
        if isinstance(value, list):
            return [plain(member, f"{place}/{at}") for at, member in enumerate(value)]
        return value

    return json.dumps(plain(value, place), ensure_ascii=False), places


def assert_same_documents(got: pa.Table, want: Documents, place: str = "") -> None:
    """Leaf by leaf; `floats` of a row may also name places in its other documents."""
    names = ("run_id", "step", "document")
    expected = pa.table({name: [row[at] for row in want] for at, name in enumerate(names)})
    long = {(run_id, step) for run_id, step, text, _ in want if len(text) > LONGEST}
    # What does not fit into memory goes where temporary files belong, not into the checkout.
    with duckdb.connect(config={"temp_directory": gettempdir()}) as connection:
        for name, documents in (("got", got.select(names)), ("expected", expected)):
            is_short = [cell not in long for cell in cells_of(documents)]
            connection.register(
                f"{name}_documents", documents.filter(pa.array(is_short, pa.bool_()))
            )
            connection.execute(LEAVES.format(name=name, documents=f"{name}_documents"))
        for one, other in (("got", "expected"), ("expected", "got")):
            sql = f"select * from {one} except all select * from {other} order by all limit 5"
            assert connection.sql(sql).fetchall() == [], f"in {one} and not in {other}"
    assert parsed(got, long) == parsed(expected, long)
    floats = {
        (row["run_id"], row["step"]): [
            one for one in json.loads(row["floats"] or "[]") if one.startswith(place)
        ]
        for row in got.to_pylist()
    }
    assert floats == {(run_id, step): places for run_id, step, _, places in want}


def cells_of(documents: pa.Table) -> list[tuple[str, str]]:
    return list(zip(documents["run_id"].to_pylist(), documents["step"].to_pylist(), strict=True))


def parsed(documents: pa.Table, which: set[tuple[str, str]]) -> dict[tuple[str, str], Any]:
    texts = zip(cells_of(documents), documents["document"].to_pylist(), strict=True)
    return {cell: json.loads(text) for cell, text in texts if cell in which}


def as_text(table: pa.Table) -> pa.Table:
    """The same rows with each value in a form that shows every bit."""
    values = [float(value).hex() for value in table["value"].to_pylist()]
    return table.select(["run_id", "_step", "key"]).append_column("value", [values])
