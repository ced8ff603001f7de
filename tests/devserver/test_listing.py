"""Listings: filters, order, pages."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from wb_ops.devserver import DevServer

PAGE = (
    "query Runs($n: Int, $c: String, $o: String) {"
    'project(name: "p", entityName: "ann") {runCount runs(first: $n, after: $c, order: $o) {'
    "totalCount edges {node {name} cursor} pageInfo {endCursor hasNextPage}}}}"
)


@pytest.fixture
def server() -> Iterator[DevServer]:
    with DevServer() as started:
        started.seed_run(
            "ann",
            "p",
            "a",
            config={"lr": 0.1, "model": {"type": "cnn"}, "on": True},
            summary={"acc": 0.5, "nested": {"x": 1}},
            tags=["good", "old"],
            created_at="2026-01-01T00:00:00",
            heartbeat_at="2026-01-01T01:00:00",
            group="g1",
            user="eve",
        )
        started.seed_run(
            "ann",
            "p",
            "b",
            config={"lr": 1},
            summary='{"acc": NaN}',
            created_at="2026-01-02T00:00:00",
            state="running",
            display_name="Bee",
            sweep="s1",
        )
        started.seed_run(
            "ann",
            "p",
            "c",
            config={"lr": "high"},
            summary={"acc": 0.9},
            tags=["good"],
            created_at="2026-01-02T00:00:00",
            job_type="eval",
            host="box",
        )
        yield started


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ({}, "abc"),
        ({"state": "running"}, "b"),
        ({"state": {"$ne": "running"}}, "ac"),
        ({"name": {"$in": ["a", "c"]}}, "ac"),
        ({"name": {"$nin": ["a", "c"]}}, "b"),
        ({"displayName": {"$regex": "^B"}}, "b"),
        ({"display_name": "Bee"}, "b"),
        ({"config.lr": 0.1}, "a"),
        ({"config.lr.value": {"$gt": 0.05}}, "ab"),
        ({"config.lr": {"$gte": "a"}}, "c"),
        ({"config.model.type": "cnn"}, "a"),
        ({"config.model.value.type": "cnn"}, "a"),
        ({"config.on": 1}, ""),
        ({"config.on": True}, "a"),
        ({"config.lr": {"$exists": True}, "config.model": {"$exists": False}}, "bc"),
        ({"summary_metrics.acc": {"$gt": 0.4, "$lt": 0.9}}, "a"),
        ({"summary_metrics.nested.x": 1}, "a"),
        ({"tags": "good"}, "ac"),
        ({"tags": {"$in": ["old", "none"]}}, "a"),
        ({"$or": [{"tags": None}, {"tags": {"$ne": "good"}}]}, "b"),
        ({"$and": [{"group": "g1"}, {"username": "eve"}]}, "a"),
        ({"$nor": [{"jobType": "eval"}, {"sweep": "s1"}]}, "a"),
        ({"$not": {"host": "box"}}, "ab"),
        ({"name": {"$not": {"$eq": "a"}}}, "bc"),
        ({"createdAt": {"$gt": "2026-01-01T12:00:00Z"}}, "bc"),
        ({"created_at": {"$lte": "2026-01-01"}}, "a"),
        ({"createdAt": {"$lt": "2026-01-02T00:30:00+01:00"}}, "a"),
        ({"heartbeatAt": {"$gte": "2026-01-02T00"}}, "bc"),
        ({"duration": {"$gte": 3600}}, "a"),
        ({"id": "a"}, ""),
    ],
)
def test_filters_choose_runs(client: Any, query: dict[str, Any], names: str) -> None:
    assert "".join(client.names(f=json.dumps(query), o="+created_at")) == names


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ({"tags": {"$all": ["a"]}}, 500),
        ({"createdAt": {"$gt": 1767225600.0}}, 500),
        ({"heartbeatAt": {"$lt": "yesterday"}}, 500),
        ({"$xor": []}, 500),
        ({"name": {"$regex": "("}}, 500),
        ({"summary.acc": 1}, 400),
    ],
)
def test_bad_filters_fail_as_the_service_fails(
    client: Any, query: dict[str, Any], status: int
) -> None:
    document = (
        'query Q($f: JSONString) {project(name: "p", entityName: "ann") {runCount(filters: $f)}}'
    )
    assert client.post(document, f=json.dumps(query)).status_code == status


@pytest.mark.parametrize(
    ("order", "names"),
    [
        ("+created_at", "abc"),
        ("-created_at", "bca"),
        ("created_at", "abc"),
        ("-heartbeat_at", "bca"),
        ("+config.lr.value", "abc"),
        ("-summary_metrics.acc", "cab"),
        ("+summary_metrics.missing", "abc"),
        (None, "bca"),
    ],
)
def test_order_is_total_and_ties_keep_the_order_of_insertion(
    client: Any, order: str | None, names: str
) -> None:
    assert "".join(client.names(o=order)) == names


def test_pages_follow_the_cursor_to_the_end(client: Any) -> None:
    cursor, seen = None, []
    for _ in range(3):
        project = client.data(PAGE, n=1, c=cursor, o="+created_at")["project"]
        seen += [edge["node"]["name"] for edge in project["runs"]["edges"]]
        cursor = project["runs"]["pageInfo"]["endCursor"]
        assert project["runCount"] == project["runs"]["totalCount"] == 3
        assert project["runs"]["edges"][-1]["cursor"] == cursor
    assert seen == ["a", "b", "c"]
    assert not project["runs"]["pageInfo"]["hasNextPage"]


def test_a_page_holds_a_thousand_runs_at_most(server: DevServer, client: Any) -> None:
    server.seed_runs({"entity": "ann", "project": "p", "run_id": f"r{i}"} for i in range(1001))
    runs = client.data(PAGE, n=5000)["project"]["runs"]
    assert len(runs["edges"]) == 1000
    assert runs["pageInfo"]["hasNextPage"]


def test_cursors_count_positions_so_a_new_run_makes_a_double(
    server: DevServer, client: Any
) -> None:
    first = client.data(PAGE, n=1, o="-created_at")["project"]["runs"]
    server.seed_run("ann", "p", "new", created_at="2026-02-01T00:00:00")
    cursor = first["pageInfo"]["endCursor"]
    second = client.data(PAGE, n=1, c=cursor, o="-created_at")["project"]["runs"]
    assert second["edges"][0]["node"] == first["edges"][0]["node"]


def test_a_foreign_cursor_is_refused(client: Any) -> None:
    assert client.post(PAGE, n=1, c="nonsense").status_code == 400


def test_listings_see_edits_and_deletions_at_once(server: DevServer, client: Any) -> None:
    running = json.dumps({"state": "running"})
    assert client.names(f=running) == ["b"]
    server.set_state("ann", "p", "b", "crashed")
    server.delete_run("ann", "p", "a")
    assert client.names(f=running) == []
    assert client.names(o="+created_at") == ["b", "c"]
