"""Checking filters: each mistake is found, named and remedied; what is right passes."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wb_ops import InvalidRequest
from wb_ops.client import filters
from wb_ops.client.filters import Finding, Severity


def nested(levels: int) -> dict[str, Any]:
    query: dict[str, Any] = {"state": "finished"}
    for _ in range(levels):
        query = {"$and": [query]}
    return query


ERRORS: list[tuple[Any, str, str]] = [
    ({"tags": {"$all": ["a"]}}, "['tags']['$all']", "one condition for each value"),
    ({"state": {"$eqq": "x"}}, "['state']['$eqq']", "did you mean '$eq'"),
    ({"state": {"$where": "x"}}, "['state']['$where']", "It has $and, "),
    ({"$xor": []}, "['$xor']", "$and, $or and $nor"),
    ({"$sort": {}}, "['$sort']", "order="),
    ({"name": {"$regex": "a", "$options": "i"}}, "['name']['$options']", "(?i)"),
    ({"name": {"$eq": "a", "b": 1}}, "['name']['b']", "beside operators"),
    ({"$and": []}, "['$and']", "at least one"),
    ({"$or": {"state": "x"}}, "['$or']", "takes a list"),
    ({"$nor": [5]}, "['$nor'][0]", "give a dict"),
    (["state"], "", "give a dict"),
    ({5: 1}, "[5]", "not text"),
    ({"name": {"$not": "a"}}, "['name']['$not']", "use $ne"),
    ({"name": {"$in": "abc"}}, "['name']['$in']", "takes a list"),
    ({"name": {"$regex": 5}}, "['name']['$regex']", "takes text"),
    ({"name": {"$regex": "("}}, "['name']['$regex']", "no regular expression"),
    ({"name": {"$regex": "a(?=b)"}}, "['name']['$regex']", "RE2"),
    ({"name": {"$regex": r"(a)\1"}}, "['name']['$regex']", "RE2"),
    ({"name": {"$regex": "a++"}}, "['name']['$regex']", "RE2"),
    ({"summary.acc": 1}, "['summary.acc']", "write 'summary_metrics.acc'"),
    ({"summary": {"$exists": True}}, "['summary']", "summary_metrics"),
    ({"summaryMetrics.acc": 1}, "['summaryMetrics.acc']", "summary_metrics.acc"),
    ({"id": "a1"}, "['id']", "'name'"),
    ({"config": 1}, "['config']", "config.lr"),
    ({"config.a..b": 1}, "['config.a..b']", "names no key"),
    ({"summary_metrics.": 1}, "['summary_metrics.']", "summary_metrics.loss"),
    ({"createdAt": {"$gt": 1.5e9}}, "['createdAt']['$gt']", "HTTP 500"),
    ({"created_at": {"$in": ["x"]}}, "['created_at']['$in'][0]", "ISO 8601"),
    ({"heartbeatAt": "2026"}, "['heartbeatAt']", "ISO 8601"),
    ({"updatedAt": "2026-02-30"}, "['updatedAt']", "ISO 8601"),
    ({"createdAt": dt.datetime(2026, 1, 1)}, "['createdAt']", "filters.created_at"),
    ({"config.d": dt.date(2026, 1, 1)}, "['config.d']", "isoformat"),
    ({"config.x": {"$lt": float("nan")}}, "['config.x']['$lt']", "no form in JSON"),
    ({"config.x": {"a": [float("inf")]}}, "['config.x']['a'][0]", "no form in JSON"),
    ({"config.x": {1, 2}}, "['config.x']", "set is not JSON"),
    ({"tags": ["a"]}, "['tags']", "HTTP 500"),
    ({"state": {"$ne": ["running"]}}, "['state']['$ne']", "$in"),
    (nested(50), "", "nests more than 100"),
]

WARNINGS: list[tuple[Any, str, str]] = [
    ({"$not": {"state": "finished"}}, "['$not']", "$nor"),
    ({"state": {"$not": {"$eq": "finished"}}}, "['state']['$not']", "$nor"),
    ({"run_id": "a"}, "['run_id']", "did you mean 'name'"),
    ({"display_nmae": "a"}, "['display_nmae']", "did you mean 'display_name'"),
    ({"lr": 0.1}, "['lr']", "'config.lr' or 'summary_metrics.lr'"),
    ({"entity": "ann"}, "['entity']", "path"),
    ({"name": "eager-fox-1"}, "['name']", "displayName"),
    ({"name": {"$in": ["a1", "my best run"]}}, "['name']['$in'][1]", "displayName"),
    ({"config.a.b": 1}, "['config.a.b']", "'config.a.value.b'"),
    ({"summary_metrics.a.b": 1}, "['summary_metrics.a.b']", "one key 'a.b'"),
    ({"config.a.b.c.d.e": 1}, "['config.a.b.c.d.e']", "at most 3 dots"),
    ({"state": "Finished"}, "['state']", "did you mean 'finished'"),
    ({"state": {"$in": ["done"]}}, "['state']['$in'][0]", "W&B has no state 'done'"),
    ({"config.lr": {"$in": []}}, "['config.lr']['$in']", "no run"),
    ({"config.lr": {"$nin": []}}, "['config.lr']['$nin']", "every run"),
    ({"config.lr": {"$exists": 1}}, "['config.lr']['$exists']", "true or false"),
    ({"config.lr": {"$gt": None}}, "['config.lr']['$gt']", "orders nothing"),
    ({"group": 5}, "['group']", "never equal to 5"),
    ({"duration": "1h"}, "['duration']", "seconds"),
]


@pytest.mark.parametrize(("query", "path", "message"), ERRORS)
def test_a_mistake_is_an_error_with_its_remedy(query: Any, path: str, message: str):
    (finding,) = filters.check(query)
    assert (finding.severity, finding.path) == (Severity.ERROR, "filters" + path)
    assert message in finding.message
    with pytest.raises(InvalidRequest, match="filters"):
        filters.require_valid(query)


@pytest.mark.parametrize(("query", "path", "message"), WARNINGS)
def test_a_doubt_is_a_warning_and_passes(query: Any, path: str, message: str):
    (finding,) = filters.check(query)
    assert (finding.severity, finding.path) == (Severity.WARNING, "filters" + path)
    assert message in finding.message
    filters.require_valid(query)


@pytest.mark.parametrize(
    "query",
    [
        {},
        {"state": "finished", "config.lr": {"$gt": 0.1, "$lte": 1}},
        {"config.lr.value": 1, "config.model.value.type": "cnn", "config.l": [1, 2]},
        {"config.model": {"type": "cnn"}, "summary_metrics.val/loss": None},
        {"createdAt": {"$gte": "2026-01-31", "$lt": "2026-02-01T00:00:00.5+01:00"}},
        {"heartbeat_at": {"$gt": "2026-01-31T12"}, "updated_at": None},
        {"tags": {"$in": ["a", "b"]}, "name": {"$nin": ["a1b2c3d4"]}},
        {"$or": [{"tags": None}, {"tags": {"$ne": "x"}}]},
        {"display_name": {"$regex": r"^foo.*\++[(?=]\\1"}},
        {"state": {"$gte": "f"}, "duration": {"$gt": 3600}},
        nested(40),
    ],
)
def test_what_is_right_has_no_finding(query: Any):
    assert filters.check(query) == []


def test_findings_stand_in_the_order_of_the_filter():
    query = {"$and": [{"id": 1}, {"$or": [{"state": "X"}, {"summary.a": 1}]}]}
    assert [str(finding).split(":")[:2] for finding in filters.check(query)] == [
        ["error", " filters['$and'][0]['id']"],
        ["warning", " filters['$and'][1]['$or'][0]['state']"],
        ["error", " filters['$and'][1]['$or'][1]['summary.a']"],
    ]


def test_require_valid_names_every_error_and_no_warning():
    with pytest.raises(InvalidRequest) as caught:
        filters.require_valid({"id": 1, "state": "X", "summary.a": 1})
    assert caught.value.message.count("\n") == 1
    assert "['id']" in caught.value.message
    assert "['summary.a']" in caught.value.message


names = st.sampled_from(["state", "$and", "$in", "createdAt", "config.a", "$not", "x", "tags"])
anything = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=3) | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=10,
)


@given(anything)
def test_it_takes_anything_and_says_the_same_twice(query: Any):
    found = filters.check(query)
    assert all(isinstance(finding, Finding) for finding in found)
    assert found == filters.check(query)
