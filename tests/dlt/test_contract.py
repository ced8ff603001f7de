"""What the contract asks of every destination, over dlt's DuckDB: values, names, types, changes."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable
from typing import Any

import dlt
import pytest

from wb_ops.devserver import DevServer
from wb_ops.tables.values import escape_text

# Two writers stand in test_two_writers.py.
Load = Callable[..., Any]
Ask = Callable[[str], list[tuple[Any, ...]]]
HOSTILE = [
    "loss", "Loss", "LOSS", 'a"b', "run_id", "a/b", "a.b", "a__b", "损失", "select", "'; drop--",
    "Robert'); DROP TABLE runs;--", "nul\0byte", "x" * 300, "x" * 301, " ", "%s", "$1", "{}",
    "a\nb", "key", "value", "_step2", "_dlt_id", "_dlt_load_id",
    "load_id", "first_seen",
]  # fmt: skip
SPECIALS = [math.nan, math.inf, -math.inf, -0.0, 5e-324, 1.7976931348623157e308, 0.1 + 0.2]
OLD = "2026-01-01T00:00:00"


@pytest.fixture
def destination(tmp_path: Any) -> Any:
    return dlt.destinations.duckdb(str(tmp_path / "loaded.duckdb"))


def seed(server: DevServer, run_id: str, history: list[dict[str, Any]], **fields: Any) -> None:
    moments = {"created_at": OLD, "heartbeat_at": OLD}
    server.seed_run("ann", "trials", run_id, history=history, **(moments | fields))


def columns(ask: Ask, table: str = "history") -> dict[str, str]:
    return dict(
        ask(f"select original_key, column_name from {{_wb_columns}} where table_name = '{table}'")
    )


def bits(values: list[float]) -> list[bytes]:
    """NaN equals itself, and -0.0 differs from 0.0."""
    return [struct.pack(">d", value) for value in values]


def test_hostile_keys_get_columns_of_their_own(server: DevServer, load: Load, ask: Ask):
    seed(server, "r1", [{"_step": 0, **{key: at for at, key in enumerate(HOSTILE)}}])
    load()
    names = columns(ask)
    assert len({name.lower() for name in names.values()}) == len(HOSTILE)
    for at, key in enumerate(HOSTILE):
        column = names[escape_text(key)[0]].replace('"', '""')
        assert ask(f'select "{column}" from {{history}}') == [(float(at),)], key


def test_special_floats_stay_what_they_are(server: DevServer, load: Load, ask: Ask):
    seed(server, "r1", [{"_step": at, "x": value} for at, value in enumerate(SPECIALS)])
    load()
    found = [value for (value,) in ask("select x from {history} order by _step")]
    assert bits(found) == bits(SPECIALS)


def test_a_metric_that_changes_its_type_is_never_rounded(server: DevServer, load: Load, ask: Ask):
    """Each in a load of its own: an int column would round what comes later."""
    for number, values in enumerate([[1, 2], [1.5, 0.0003], ["text", True], [2**60 + 1, "NaN"]]):
        rows = [{"_step": step, "x": value} for step, value in enumerate(values)]
        seed(server, f"r{number}", rows)
        load(mode="reconcile")
    found = ask("select run_id, _step, x, _extra from {history} order by 1, 2")
    assert [row[2] for row in found] == [1.0, 2.0, 1.5, 0.0003, None, None, float(2**60), None]
    extras = [json.loads(row[3])["x"] for row in found if row[3] is not None]
    assert extras == ["text", True, 2**60 + 1, "NaN"]


def test_two_thousand_metrics(server: DevServer, load: Load, ask: Ask):
    metrics = {f"Metric/{n}": n + 0.5 for n in range(2000)}
    seed(server, "r1", [{"_step": 0, **metrics}])
    load()
    names = columns(ask)
    long = dict(ask("select key, value from {history_long}"))
    assert (len(names), len(long)) == (1000, 1000)
    (row,) = ask("select " + ", ".join(f'"{name}"' for name in names.values()) + " from {history}")
    assert dict(zip(names, row, strict=True)) | long == metrics


def test_a_run_that_is_made_anew_leaves_nothing_behind(server: DevServer, load: Load, ask: Ask):
    """Another step, fewer metrics, none in the long table: of the old ones nothing stays."""
    wide = {f"m{n}": 1.0 for n in range(1001)}
    seed(server, "r1", [{"_step": 0, **wide}], config={"lr": 0.1})
    seed(server, "r2", [{"_step": 0, "m0": 9.0}], config={"opt": "adam"})
    load()
    ask("delete from {history_long}")  # as another load could: it is read again
    load()
    assert ask("select run_id, value from {history_long}") == [("r1", 1.0)]
    server.delete_run("ann", "trials", "r1")
    later = {"created_at": "2026-02-01T00:00:00", "heartbeat_at": "2026-02-01T00:00:00"}
    seed(server, "r1", [{"_step": 5, "m0": 2.0}], config={"lr": 0.2}, **later)
    load(mode="reconcile")
    assert ask("select run_id, _step, m0, m1 from {history} order by 1") == [
        ("r1", 5, 2.0, None), ("r2", 0, 9.0, None)
    ]  # fmt: skip
    assert ask("select run_id, config__lr, config__opt from {runs_flat} order by 1") == [
        ("r1", 0.2, None), ("r2", None, "adam")
    ]  # fmt: skip
    live = (
        "select count(*) from {history_long} l join (select run_id, max(load_id) as load_id from "
        "{_wb_receipts} where table_name = 'history' group by 1) n "
        "on n.run_id = l.run_id and n.load_id = l._load_id"
    )
    assert ask(live) == [(0,)]


def test_texts_and_documents_arrive_as_they_were(server: DevServer, load: Load, ask: Ask):
    texts = ["it's", 'say "no"', "a\\b", "损失 🎉", "nul\0", "a\tb\nc", ""]
    config = {"texts": texts, "nested": {"e": 1e22, "int": 10**30, "nan": math.nan}}
    seed(server, "r'1", [], config=config, tags=["a,b", "{}"], notes="".join(texts))
    load()
    ((run_id, notes, tags, stored, floats),) = ask(
        "select run_id, notes, tags, config, _floats from {runs}"
    )
    assert (run_id, notes) == ("r'1", escape_text("".join(texts))[0])
    assert json.loads(tags) == ["a,b", "{}"]
    document = json.loads(stored)
    assert document["texts"] == [escape_text(text)[0] for text in texts]
    assert document["nested"] == {"e": 1e22, "int": 10**30, "nan": "NaN"}
    assert json.loads(floats) == ["/config/nested/nan"]


def test_system_metrics_are_replaced_by_run(server: DevServer, load: Load, ask: Ask):
    events = [{"_timestamp": 1.0 * at, "system.cpu": at / 7} for at in range(3)]
    for run_id in ("r1", "r2"):
        seed(server, run_id, [{"_step": 0, "x": 1.0}], events=events)
    everything = {"tables": ("runs", "history", "system_metrics")}
    for _ in range(2):
        load(**everything, mode="full")
    found = ask("select run_id, key, value, sampled from {system_metrics} order by 1, 3")
    assert found == [
        (run_id, "system.cpu", at / 7, True) for run_id in ("r1", "r2") for at in range(3)
    ]
