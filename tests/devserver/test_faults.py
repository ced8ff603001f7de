"""Faults: each strikes what it was set for, as often as it was set for."""

from __future__ import annotations

from typing import Any

import pytest
import requests

from wb_ops.devserver import DevServer, Fault, Matcher, Responder

RUN = "query Run {viewer {id}}"
PAGE = (
    'query Runs($c: String) {project(name: "p", entityName: "ann") {runs(first: 2, after: $c, '
    'order: "+created_at") {edges {node {name user {name}} cursor} '
    "pageInfo {endCursor hasNextPage}}}}"
)


def strike(server: DevServer, respond: Responder, times: int | None = 1, **match: Any) -> None:
    server.faults.add(Fault(Matcher(**match), respond, times))


def page(client: Any, cursor: str | None = None) -> Any:
    return client.data(PAGE, c=cursor)["project"]["runs"]


def names(runs: Any) -> list[str]:
    return [edge["node"]["name"] for edge in runs["edges"]]


@pytest.fixture
def five_runs(server: DevServer) -> None:
    for i in range(5):
        server.seed_run("ann", "p", f"r{i}", created_at=f"2026-01-0{i + 1}")


def test_a_fault_strikes_once_unless_told_otherwise(server: DevServer, client: Any) -> None:
    strike(server, Responder.rate_limited(2, RateLimit_Remaining="0"), operation="Run")
    limited = client.post(RUN)
    assert limited.status_code == 429
    assert limited.headers["Retry-After"] == "2"
    assert limited.headers["RateLimit-Remaining"] == "0"
    assert client.post(RUN).status_code == 200


def test_a_fault_can_last_until_it_is_cleared(server: DevServer, client: Any) -> None:
    strike(server, Responder.error(502, "bad gateway"), times=None)
    assert [client.post(RUN).status_code for _ in range(3)] == [502] * 3
    assert client.post(RUN).json() == {"errors": [{"message": "bad gateway"}]}
    server.faults.clear()
    assert client.post(RUN).status_code == 200


def test_faults_are_used_in_the_order_they_were_added(server: DevServer, client: Any) -> None:
    strike(server, Responder.error(503))
    strike(server, Responder.rate_limited())
    assert [client.post(RUN).status_code for _ in range(3)] == [503, 429, 200]


def test_the_nth_request_of_an_operation_can_be_struck(server: DevServer, client: Any) -> None:
    strike(server, Responder.error(500), operation="Run", nth=2)
    statuses = []
    for document in (RUN, "query Other {viewer {id}}", RUN, RUN):
        statuses.append(client.post(document).status_code)
    assert statuses == [200, 200, 500, 200]


def test_html_can_come_with_status_200(server: DevServer, client: Any) -> None:
    strike(server, Responder.html())
    answer = client.post(RUN)
    assert answer.status_code == 200
    assert answer.text.startswith("<!DOCTYPE html>")


def test_the_true_answer_can_carry_more_headers(server: DevServer, client: Any) -> None:
    strike(server, Responder(headers={"RateLimit-Remaining": "3"}))
    answer = client.post(RUN)
    assert answer.json()["data"]["viewer"]
    assert answer.headers["RateLimit-Remaining"] == "3"


@pytest.mark.parametrize(
    "respond", [Responder.reset(), Responder.lost_answer(), Responder.cut_body()]
)
def test_connections_break(server: DevServer, client: Any, respond: Responder) -> None:
    strike(server, respond)
    with pytest.raises((requests.ConnectionError, requests.exceptions.ChunkedEncodingError)):
        client.post(RUN)
    assert client.post(RUN).status_code == 200


@pytest.mark.parametrize(
    ("respond", "summary"),
    [(Responder.lost_answer(), '{"a": 1}'), (Responder.reset(), "{}")],
)
def test_a_lost_answer_was_carried_out_and_a_reset_was_not(
    server: DevServer, client: Any, respond: Responder, summary: str
) -> None:
    run_id = server.seed_run("ann", "p", "r1")
    strike(server, respond, operation="M")
    mutation = (
        f'mutation M($s: JSONString) {{upsertBucket(input: {{id: "{run_id}", summaryMetrics: $s}}) '
        "{bucket {id}}}"
    )
    with pytest.raises(requests.ConnectionError):
        client.post(mutation, s='{"a": 1}')
    assert client.run("ann/p/r1", "summaryMetrics") == {"summaryMetrics": summary}
    assert [record.status for record in server.requests if record.operation == "M"] == [0]


@pytest.mark.usefixtures("five_runs")
def test_an_empty_page_is_not_the_end(server: DevServer, client: Any) -> None:
    strike(server, Responder.odd("empty_page"), operation="Runs", nth=2)
    first = page(client)
    empty = page(client, first["pageInfo"]["endCursor"])
    assert (names(empty), empty["pageInfo"]["hasNextPage"]) == ([], True)
    assert empty["pageInfo"]["endCursor"] != first["pageInfo"]["endCursor"]
    assert names(page(client, empty["pageInfo"]["endCursor"])) == ["r2", "r3"]


@pytest.mark.usefixtures("five_runs")
def test_the_same_cursor_can_come_twice(server: DevServer, client: Any) -> None:
    strike(server, Responder.odd("same_cursor"), operation="Runs", nth=2)
    cursor = page(client)["pageInfo"]["endCursor"]
    second = page(client, cursor)
    assert second["pageInfo"] == {"endCursor": cursor, "hasNextPage": True}
    assert second["edges"][-1]["cursor"] == cursor


@pytest.mark.usefixtures("five_runs")
def test_users_can_be_null(server: DevServer, client: Any) -> None:
    strike(server, Responder.odd("null_user"))
    assert page(client)["edges"][0]["node"]["user"] is None
    assert page(client)["edges"][0]["node"]["user"] == {"name": "dev"}


@pytest.mark.usefixtures("five_runs")
def test_a_run_can_vanish_between_two_pages(server: DevServer, client: Any) -> None:
    vanish = Fault(
        Matcher(operation="Runs", nth=2),
        Responder(),
        action=lambda: server.delete_run("ann", "p", "r0"),
    )
    server.faults.add(vanish)
    cursor = page(client)["pageInfo"]["endCursor"]
    assert names(page(client, cursor)) == ["r3", "r4"]


@pytest.mark.usefixtures("five_runs")
def test_a_project_can_vanish_between_two_pages(server: DevServer, client: Any) -> None:
    cursor = page(client)["pageInfo"]["endCursor"]
    server.delete_project("ann", "p")
    assert client.data(PAGE, c=cursor) == {"project": None}


def test_export_urls_can_be_expired_and_files_broken(server: DevServer, client: Any) -> None:
    server.seed_run("ann", "p", "r1", history=[{"x": i} for i in range(5)])
    selection = 'parquetHistory(liveKeys: ["_step"]) {parquetUrls}'
    strike(server, Responder.odd("expired_urls"))
    [expired] = client.run("ann/p/r1", selection)["parquetHistory"]["parquetUrls"]
    assert requests.get(expired, timeout=30).status_code == 403
    [url] = client.run("ann/p/r1", selection)["parquetHistory"]["parquetUrls"]
    strike(server, Responder.truncated(20), path="/exports/*", origin="storage")
    broken = requests.get(url, timeout=30)
    assert (broken.status_code, len(broken.content)) == (200, 20)
    assert len(requests.get(url, timeout=30).content) > 20


def test_a_slow_answer_is_the_true_one(server: DevServer, client: Any) -> None:
    strike(server, Responder.slow(0.2))
    answer = client.post(RUN)
    assert answer.json()["data"]["viewer"]
    assert server.requests[-1].duration_s >= 0.2


def test_an_unknown_quirk_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown quirks: typo"):
        Responder.odd("typo")
