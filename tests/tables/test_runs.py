"""Run objects become rows that say what the server said."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wb_ops.tables.runs import run_row, runs_table, unwrap_config
from wb_ops.tables.schemas import RUNS, check_schema
from wb_ops.tables.values import decode_document

NODE = {
    "id": "UnVuOnYxOnIx",
    "name": "r1",
    "displayName": "fluent-sun-1",
    "state": "finished",
    "group": "g",
    "jobType": "train",
    "sweepName": "s1",
    "tags": ["b", "a"],
    "notes": "n",
    "commit": "abc",
    "createdAt": "2023-11-05T17:46:35",
    "heartbeatAt": "2023-11-05T18:46:35.5Z",
    "user": {"username": "ann"},
    "historyLineCount": 7,
    "historyKeys": {"lastStep": 9, "keys": {}},
    "config": '{"lr": {"value": NaN, "desc": null}, "_wandb": {"value": {}}, "wandb_version": 1}',
    "summaryMetrics": '{"acc": 0.5, "_runtime": 12.5, "x": {"y": [Infinity, "Infinity"]}}',
    "newField": 1,
}
EMPTY = {"name": "r2", "user": None, "historyKeys": None, "config": None, "summaryMetrics": None}


def row(**changes: object):
    return run_row({**NODE, **changes}, entity="e", project="p")


def run_hash(**changes: object) -> str:
    return str(row(**changes).content_hash)


def test_a_table_has_the_canonical_schema_and_one_row_a_run() -> None:
    table = runs_table([NODE, EMPTY], entity="e", project="p", load_id=None)
    check_schema(table, RUNS)
    first, second = table.to_pylist()
    assert first["run_group"] == "g"
    assert first["tags"] == ["b", "a"]
    assert first["created_at"] == datetime(2023, 11, 5, 17, 46, 35, tzinfo=UTC)
    assert first["heartbeat_at"] == datetime(2023, 11, 5, 18, 46, 35, 500_000, tzinfo=UTC)
    assert (first["runtime_s"], first["history_rows"], first["last_step"]) == (12.5, 7, 9)
    assert (second["config"], second["summary"], second["tags"]) == ("{}", "{}", [])
    assert second["_floats"] is second["username"] is second["last_step"] is None


def test_no_run_makes_an_empty_table() -> None:
    check_schema(runs_table([], entity="e", project="p", load_id="l"), RUNS)


def test_special_floats_of_both_documents_are_found_again() -> None:
    read = row()
    floats = json.loads(read.floats or "[]")
    assert floats == ["/config/lr", "/summary/x/y/0"]
    assert decode_document(read.summary, floats, "/summary") == {
        "acc": 0.5,
        "_runtime": 12.5,
        "x": {"y": [math.inf, "Infinity"]},
    }


def test_config_is_unwrapped_exactly_once() -> None:
    text = '{"a": {"value": {"value": 1}}, "b": 2, "c": {"d": 3}, "e": {"value": null}}'
    assert unwrap_config(text) == {"a": {"value": 1}, "b": 2, "c": {"d": 3}, "e": None}


@pytest.mark.parametrize("text", ["0001-01-01T00:00:00+05:00", "9999-12-31T23:59:59-05:00"])
def test_a_time_outside_of_the_calendar_is_no_time(text: str) -> None:
    with pytest.raises(ValueError, match=f"run 'r1': .*{text[:10]}"):
        run_row({"name": "r1", "createdAt": text}, entity="ann", project="trials")


@pytest.mark.parametrize(
    ("summary", "runtime_s"),
    [('{"_wandb": {"runtime": 5}}', 5.0), ('{"_runtime": "x"}', None), ("{}", None)],
)
def test_runtime_falls_back_to_the_internal_counter(summary: str, runtime_s: float | None) -> None:
    assert row(summaryMetrics=summary).runtime_s == runtime_s


@pytest.mark.parametrize(
    ("keys", "last_step"), [('{"lastStep": 3}', 3), ("{}", None), ("", None), ({}, None)]
)
def test_history_keys_come_as_object_or_text(keys: object, last_step: int | None) -> None:
    assert row(historyKeys=keys).last_step == last_step


def test_unstorable_characters_are_escaped_and_counted() -> None:
    read = row(displayName="a\x00b", tags=["\ud800"], config='{"k\\u0000": {"value": 1}}')
    assert (read.display_name, read.tags) == ("a\u241b0000b", ["\u241bD800"])
    assert read.escaped == 3


@pytest.mark.parametrize(
    "changes",
    [
        {"config": "{"},
        {"config": "[1]"},
        {"summaryMetrics": "[" * 9999},
        {"createdAt": "yesterday"},
        {"tags": "a"},
        {"notes": 1},
    ],
)
def test_a_run_that_cannot_be_read_is_named(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="run 'r1'"):
        row(**changes)


@pytest.mark.parametrize("name", [None, ""])
def test_a_run_needs_an_id(name: object) -> None:
    with pytest.raises(ValueError, match="name is missing"):
        row(name=name)


VALUES = ["1", "1.0", '"1"', "true", "null", "NaN", '"NaN"', "Infinity", "[1]", "{}", "-0.0", "0.0"]


def test_the_hash_tells_every_type_apart() -> None:
    hashes = {run_hash(summaryMetrics=f'{{"a": {value}}}') for value in VALUES}
    assert len({*hashes, run_hash(summaryMetrics="{}")}) == len(VALUES) + 1


def test_the_hash_ignores_order_heartbeat_and_counters() -> None:
    same = run_hash(
        heartbeatAt="2024-01-01T00:00:00",
        historyLineCount=8,
        historyKeys=None,
        tags=["a", "b"],
        summaryMetrics='{"x": {"y": [Infinity, "Infinity"]}, "_runtime": 12.5, "acc": 0.5}',
    )
    assert same == run_hash()


@pytest.mark.parametrize(
    "field", ["displayName", "state", "group", "jobType", "sweepName", "notes", "commit"]
)
def test_the_hash_sees_every_text_field_and_tells_null_from_empty(field: str) -> None:
    assert len({run_hash(), run_hash(**{field: None}), run_hash(**{field: ""})}) == 3


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
summaries = st.dictionaries(st.text(max_size=2), json_values, max_size=3)


def hash_of(summary: dict[str, object]) -> str:
    node = {"name": "r", "summaryMetrics": json.dumps(summary)}
    return run_row(node, entity="e", project="p").content_hash


def typed(value: object) -> object:
    if isinstance(value, dict):
        return {"object": {key: typed(member) for key, member in value.items()}}
    if isinstance(value, list):
        return [typed(member) for member in value]
    return (type(value).__name__, repr(value))


@given(summaries, summaries)
def test_hashes_are_equal_exactly_when_the_typed_documents_are(
    a: dict[str, object], b: dict[str, object]
) -> None:
    assert (hash_of(a) == hash_of(b)) == (typed(a) == typed(b))
    assert hash_of(a) == hash_of(dict(reversed(a.items())))


def test_every_real_run_keeps_config_and_summary(corpus_runs: list[dict[str, object]]) -> None:
    for run in corpus_runs:
        config, summary = run.get("config") or {}, run.get("summary") or {}
        node = {"name": "r", "config": json.dumps(config), "summaryMetrics": json.dumps(summary)}
        read = run_row(node, entity="e", project="p")
        floats = json.loads(read.floats or "[]")
        stored = decode_document(read.config, floats, "/config")
        assert json.dumps(decode_document(read.summary, floats, "/summary")) == json.dumps(summary)
        assert isinstance(config, dict)
        assert json.dumps(stored) == json.dumps(
            {
                key: member["value"] if isinstance(member, dict) and "value" in member else member
                for key, member in config.items()
                if key not in ("_wandb", "wandb_version")
            }
        )
