"""Evaluating filters here: MongoDB's meaning, on runs as the server sends them."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from wb_ops import InvalidRequest, MalformedResponse
from wb_ops.client import filters
from wb_ops.client.filters import matches, run_node

NODE = {
    "id": "UnVuOnYx",
    "name": "a1",
    "displayName": "eager-fox-1",
    "state": "finished",
    "group": None,
    "jobType": "",
    "sweepName": "s1",
    "tags": ["good", "old"],
    "user": {"name": "Eve", "username": "eve"},
    "createdAt": "2026-01-01T00:00:00",
    "heartbeatAt": "2026-01-01T01:00:00Z",
    "config": json.dumps(
        {
            "lr": {"value": 0.1, "desc": None},
            "n": {"value": 1},
            "text": {"value": "1"},
            "on": {"value": True},
            "null": {"value": None},
            "empty": {"value": []},
            "list": {"value": [32, 64, [7]]},
            "flags": {"value": [True]},
            "model": {"value": {"type": "cnn", "opt": {"lr": 2}, "on": True}},
            "value": {"value": {"value": 7}},
            "dot.ted": {"value": 5},
            "dot": {"value": {"ted": 4, "only": 3}},
            "bare": 9,
        }
    ),
    "summaryMetrics": '{"acc": 0.5, "nan": NaN, "inf": Infinity, "text": "NaN", "null": null, '
    '"big": 9007199254740993, "val/loss": 1, "loss": {"min": 0.2}, "a.b.c": 1}',
}

MATCH: list[dict[str, Any]] = [
    {},
    {"name": "a1"},
    {"sweep": "s1", "username": "eve"},
    {"display_name": {"$regex": "fox"}},
    {"displayName": {"$regex": "(?i)^EAGER"}},
    {"state": {"$in": ["finished", "failed"]}},
    {"state": {"$nin": ["running"]}},
    {"state": {"$gt": "a", "$lt": "z"}},
    {"group": None},
    {"group": {"$exists": False}},
    {"group": {"$ne": "g"}},
    {"group": {"$nin": ["g"]}},
    {"jobType": ""},
    {"jobType": {"$exists": True}},
    {"nosuch": None},
    {"duration": 3600},
    {"duration": {"$gte": 3599.5}},
    # tags
    {"tags": "good"},
    {"tags": {"$in": ["new", "old"]}},
    {"tags": {"$regex": "^o"}},
    {"$and": [{"tags": "good"}, {"tags": "old"}]},
    # config: wrapped once, nested, bare
    {"config.lr": 0.1},
    {"config.lr.value": 0.1},
    {"config.model.type": "cnn"},
    {"config.model.value.type": "cnn"},
    {"config.model.opt.lr": {"$gte": 2}},
    {"config.value": {"value": 7}},
    {"config.value.value": {"value": 7}},
    {"config.value.value.value": 7},
    {"config.bare": 9},
    {"config.model": {"opt": {"lr": 2.0}, "on": True, "type": "cnn"}},
    # keys with dots go before members
    {"config.dot.ted": 5},
    {"config.dot.value.ted": 4},
    {"config.dot.only": 3},
    {"summary_metrics.a.b.c": 1},
    {"summary_metrics.loss.min": {"$lt": 1}},
    {"summary_metrics.val/loss": 1},
    # types
    {"config.n": 1.0},
    {"config.n": {"$ne": "1"}},
    {"config.n": {"$ne": True}},
    {"config.on": True},
    {"config.on": {"$gt": False}},
    # null and what is not there
    {"config.null": None},
    {"config.null": {"$exists": True}},
    {"config.zz": None},
    {"config.zz": {"$exists": False}},
    {"config.zz": {"$ne": 1}},
    {"config.zz": {"$nin": [1]}},
    {"config.zz": {"$in": [1, None]}},
    # lists
    {"config.list": 64},
    {"config.list": [32, 64, [7]]},
    {"config.list": [7]},
    {"config.list": {"$gt": 60}},
    {"config.empty": {"$ne": None}},
    {"config.empty": []},
    # special floats and big integers
    {"summary_metrics.nan": {"$ne": 0.5}},
    {"summary_metrics.nan": {"$exists": True}},
    {"summary_metrics.inf": {"$gt": 1e300}},
    {"summary_metrics.text": "NaN"},
    {"summary_metrics.big": 9007199254740993},
    # times are instants
    {"createdAt": "2026-01-01"},
    {"created_at": "2026-01-01T01:00:00+01:00"},
    {"createdAt": {"$in": ["2026-01-01T00:00:00.000Z"]}},
    {"heartbeatAt": {"$gt": "2026-01-01T00:30", "$lte": "2026-01-01T01"}},
    {"createdAt": {"$ne": None}},
    # logic
    {"$or": [{"state": "x"}, {"name": "a1"}]},
    {"$nor": [{"state": "x"}, {"name": "b"}]},
    {"$not": {"state": "x"}},
    {"config.n": {"$not": {"$gt": 1}}},
]

DIFFER: list[dict[str, Any]] = [
    {"name": "A1"},
    {"state": "finished", "name": "b"},
    {"nosuch": 1},
    {"tags": None},
    {"tags": {"$ne": "good"}},
    {"tags": {"$nin": ["old"]}},
    {"config.lr": "0.1"},
    {"config.text": 1},
    {"config.text": {"$gt": 0}},
    {"config.on": 1},
    {"config.n": True},
    {"config.flags": 1},
    {"config.flags": [1]},
    {"config.model": {"type": "cnn"}},
    {"config.model": {"type": "cnn", "opt": {"lr": 2}, "on": 1}},
    {"config.model.type.value": "cnn"},
    {"config.null": {"$gt": 0}},
    {"config.zz": {"$lt": 1}},
    {"config.zz": {"$regex": ""}},
    {"config.empty": None},
    {"config.list": {"$nin": [32]}},
    {"config.list": [32]},
    {"config.value": 7},
    {"summary_metrics.nan": {"$gt": 0}},
    {"summary_metrics.nan": {"$lte": 0}},
    {"summary_metrics.text": {"$gt": 0}},
    {"summary_metrics.big": 9007199254740992},
    {"createdAt": {"$gt": "2026-01-01T00:00:00Z"}},
    {"$nor": [{"name": "a1"}]},
    {"config.n": {"$in": []}},
]


@pytest.mark.parametrize("query", MATCH, ids=json.dumps)
def test_the_run_matches(query: dict[str, Any]):
    assert matches(query, NODE)
    assert not matches({"$nor": [query]}, NODE)


@pytest.mark.parametrize("query", DIFFER, ids=json.dumps)
def test_the_run_does_not_match(query: dict[str, Any]):
    assert not matches(query, NODE)
    assert matches({"$nor": [query]}, NODE)


def test_no_tags_equal_null():
    untagged = run_node(tags=[])
    assert matches({"tags": None}, untagged)
    assert matches({"tags": {"$ne": "x"}}, untagged)
    assert matches(~filters.tags.exists(), untagged)


@pytest.mark.parametrize("text", [None, "", "{}"])
def test_a_run_that_logged_nothing_has_no_values(text: str | None):
    assert matches({"config.lr": None, "summary_metrics.x": None}, {**NODE, "config": text})


@pytest.mark.parametrize("text", ["[1]", '{"lr": '])
def test_a_broken_document_is_said_so(text: str):
    with pytest.raises(MalformedResponse, match="config"):
        matches({"config.lr": 1}, {**NODE, "config": text})


def test_a_user_of_null_has_no_name():
    assert matches({"username": None}, {**NODE, "user": None})


@pytest.mark.parametrize("query", [{"host": None}, {"updatedAt": {"$gt": "2026-01-01"}}])
def test_a_field_that_was_not_read_is_not_taken_for_null(query: dict[str, Any]):
    with pytest.raises(InvalidRequest, match="was read without"):
        matches(query, NODE)


@pytest.mark.parametrize("query", [{"id": "UnVuOnYx"}, {"summary.acc": 1}, {"x": {"$size": 1}}])
def test_what_the_server_refuses_is_refused_here(query: dict[str, Any]):
    with pytest.raises(InvalidRequest):
        matches(query, NODE)


def test_run_node_takes_plain_values():
    run = run_node(
        run_id="a1", display_name=None, state="running", group="g", job_type="t", sweep="s",
        username="eve", host="box", tags=["a"], created_at=datetime(2026, 1, 1, tzinfo=UTC),
        heartbeat_at="2026-01-01T00:01:00", updated_at=None,
        config={"value": {"value": 3}}, summary={"loss": float("nan")},
    )  # fmt: skip
    wanted = filters.all_of(
        {"name": "a1", "displayName": None, "state": "running", "group": "g", "jobType": "t"},
        {"sweep": "s", "username": "eve", "host": "box", "tags": "a", "updatedAt": None},
        filters.created_at == "2026-01-01",
        filters.duration_s == 60,
        filters.config("value") == {"value": 3},
        filters.summary("loss").exists(),
    )
    assert matches(wanted, run)


def test_run_node_refuses_a_time_without_zone():
    with pytest.raises(InvalidRequest, match="time zone"):
        run_node(created_at=datetime(2026, 1, 1))
