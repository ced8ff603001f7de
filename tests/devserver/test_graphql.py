"""Documents, accounts, upserts: answered as the service answers them."""

from __future__ import annotations

import json
from typing import Any

import pytest
import requests

from wb_ops.devserver import DEV_API_KEY, ApiKey, DevServer

UPSERT = "mutation U($i: UpsertBucketInput!) {upsertBucket(input: $i) {inserted bucket {id name}}}"


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("{viewer {nope}}", "Cannot query field 'nope' on type 'User'."),
        ('{project(nam: "p") {id}}', "Unknown argument 'nam'"),
        ("{viewer {id}", "Syntax Error"),
        ("query Q($x: Int) {viewer {id}}", "never used"),
    ],
)
def test_what_the_schema_does_not_know_is_an_error(
    client: Any, document: str, message: str
) -> None:
    answer = client.post(document)
    assert answer.status_code == 400
    assert message in answer.json()["errors"][0]["message"]


def test_unknown_projects_and_runs_are_null(server: DevServer, client: Any) -> None:
    server.seed_run("ann", "p", "r1")
    assert client.data('{project(name: "x", entityName: "ann") {id}}') == {"project": None}
    assert client.run("ann/p/nope", "id") is None


@pytest.mark.parametrize("auth", [None, ("api", "short"), ("other", "k" * 40)])
def test_no_or_malformed_credentials_are_401(server: DevServer, auth: Any) -> None:
    body = {"query": "{viewer {id}}"}
    answer = requests.post(f"{server.url}/graphql", json=body, auth=auth, timeout=30)
    assert answer.status_code == 401
    assert answer.json()["errors"]


def test_a_key_that_nobody_owns_has_no_viewer_and_no_more(server: DevServer) -> None:
    auth = ("api", "k" * 40)
    url = f"{server.url}/graphql"
    viewer = requests.post(url, json={"query": "{viewer {id}}"}, auth=auth, timeout=30)
    assert (viewer.status_code, viewer.json()) == (200, {"data": {"viewer": None}})
    project = requests.post(url, json={"query": '{project(name: "p") {id}}'}, auth=auth, timeout=30)
    assert project.status_code == 401


def test_a_read_only_key_reads_and_does_not_write() -> None:
    with DevServer(api_keys={DEV_API_KEY: ApiKey(read_only=True)}) as server:
        server.seed_run("dev", "p", "r1")
        url, auth = f"{server.url}/graphql", ("api", DEV_API_KEY)
        read = requests.post(
            url, json={"query": '{project(name: "p") {id}}'}, auth=auth, timeout=30
        )
        written = requests.post(
            url, json={"query": UPSERT, "variables": {"i": {"name": "x"}}}, auth=auth, timeout=30
        )
    assert read.status_code == 200
    assert written.status_code == 403
    assert written.json()["errors"][0]["message"] == "permission denied"


def test_several_runs_come_under_aliases_in_one_document(server: DevServer, client: Any) -> None:
    for name in ("r1", "r2"):
        server.seed_run("ann", "p", name, summary={"id": name})
    fields = "summaryMetrics"
    document = (
        'query Runs {project(name: "p", entityName: "ann") '
        f'{{a: run(name: "r1") {{{fields}}} b: run(name: "r2") {{{fields}}} '
        f'c: run(name: "r3") {{{fields}}}}}}}'
    )
    project = client.data(document)["project"]
    assert project["a"] == {"summaryMetrics": '{"id": "r1"}'}
    assert project["b"] == {"summaryMetrics": '{"id": "r2"}'}
    assert project["c"] is None


def test_aliased_upserts_succeed_and_fail_one_by_one(server: DevServer, client: Any) -> None:
    first = server.seed_run("ann", "p", "r1")
    locked = server.seed_run("ann", "p", "r2", read_only=True)
    document = (
        "mutation M($s: JSONString) {"
        f'a: upsertBucket(input: {{id: "{first}", summaryMetrics: $s}}) {{bucket {{id}}}} '
        f'b: upsertBucket(input: {{id: "{locked}", summaryMetrics: $s}}) {{bucket {{id}}}}}}'
    )
    answer = client.post(document, s='{"x": NaN}')
    assert answer.status_code == 200
    assert answer.json()["data"] == {"a": {"bucket": {"id": first}}, "b": None}
    assert answer.json()["errors"][0]["path"] == ["b"]
    assert client.run("ann/p/r1", "summaryMetrics") == {"summaryMetrics": '{"x": NaN}'}


def test_an_edit_replaces_a_field_whole_and_moves_only_updated_at(
    server: DevServer, client: Any
) -> None:
    then = "2026-01-01T00:00:00"
    run_id = server.seed_run(
        "ann", "p", "r1", summary={"a": 1, "b": 2}, tags=["x"], created_at=then
    )
    client.data(UPSERT, i={"id": run_id, "summaryMetrics": '{"a": 3}', "tags": None, "notes": None})
    run = client.run("ann/p/r1", "summaryMetrics tags notes heartbeatAt updatedAt createdAt")
    assert run["summaryMetrics"] == '{"a": 3}'
    assert (run["tags"], run["notes"]) == (["x"], None)
    assert (run["heartbeatAt"], run["createdAt"]) == (then, then)
    assert run["updatedAt"] > then


def test_documents_come_back_to_the_last_digit(server: DevServer, client: Any) -> None:
    summary = '{"big": 123456789012345678901, "f": 0.1000000000000000055, "n": -Infinity}'
    server.seed_run("ann", "p", "r1", summary=summary, history=[summary])
    run = client.run("ann/p/r1", "summaryMetrics history(samples: 9)")
    assert run["summaryMetrics"] == summary
    assert run["history"] == ['{"_step": 0, ' + summary[1:]]


@pytest.mark.parametrize("document", ["[1]", "no json"])
def test_a_document_that_is_no_object_is_refused(
    server: DevServer, client: Any, document: str
) -> None:
    run_id = server.seed_run("ann", "p", "r1", summary={"a": 1})
    answer = client.post(UPSERT, i={"id": run_id, "summaryMetrics": document})
    assert answer.status_code == 400
    assert client.run("ann/p/r1", "summaryMetrics") == {"summaryMetrics": '{"a": 1}'}


def test_a_deleted_run_is_gone_and_its_id_unknown(server: DevServer, client: Any) -> None:
    run_id = server.seed_run("ann", "p", "r1")
    delete = "mutation D($i: ID!) {deleteRun(input: {id: $i}) {clientMutationId}}"
    client.data(delete, i=run_id)
    assert client.run("ann/p/r1", "id") is None
    assert client.post(delete, i=run_id).status_code == 404


@pytest.mark.parametrize(
    ("before", "after", "is_allowed"),
    [
        ("crashed", "pending", True),
        ("running", "failed", True),
        ("finished", "failed", False),
        ("running", "finished", False),
    ],
)
def test_only_some_changes_of_state_are_allowed(
    server: DevServer, client: Any, before: str, after: str, is_allowed: bool
) -> None:
    run_id = server.seed_run("ann", "p", "r1", state=before)
    document = "mutation S($i: UpdateRunStateInput!) {updateRunState(input: $i) {success}}"
    answer = client.post(document, i={"id": run_id, "state": after}).json()
    assert ("errors" not in answer) == is_allowed
    assert client.run("ann/p/r1", "state") == {"state": after if is_allowed else before}


def test_console_lines_come_in_pages_and_from_the_end(server: DevServer, client: Any) -> None:
    log = [f"2026-01-01T00:00:0{i}.5 line {i}" for i in range(4)]
    server.seed_run("ann", "p", "r1", log=[*log, "ERROR 2026-01-01T00:00:04 bad"])
    lines = "edges {node {number level line}} pageInfo {endCursor hasNextPage}"
    first = client.run("ann/p/r1", f"logLines(first: 3) {{{lines}}}")["logLines"]
    assert [edge["node"]["line"] for edge in first["edges"]] == ["line 0", "line 1", "line 2"]
    cursor = json.dumps(first["pageInfo"]["endCursor"])
    rest = client.run("ann/p/r1", f"logLines(first: 3, after: {cursor}) {{{lines}}}")["logLines"]
    assert [edge["node"]["number"] for edge in rest["edges"]] == [3, 4]
    assert rest["edges"][1]["node"]["level"] == "error"
    last = client.run("ann/p/r1", f"logLines(last: 1) {{{lines}}}")["logLines"]
    assert [edge["node"]["line"] for edge in last["edges"]] == ["bad"]


def test_files_are_listed_by_name_and_by_pattern(server: DevServer, client: Any) -> None:
    server.seed_run("ann", "p", "r1", files={"a.json": b"{}", "b.txt": b"text"})
    node = "edges {node {name sizeBytes md5}}"
    run = client.run(
        "ann/p/r1",
        f'fileCount all: files {{{node}}} json: files(pattern: "%.json") {{{node}}} '
        f'gone: files(names: ["c"]) {{{node}}}',
    )
    assert run["fileCount"] == 2
    assert [edge["node"]["name"] for edge in run["all"]["edges"]] == ["a.json", "b.txt"]
    assert [edge["node"]["sizeBytes"] for edge in run["json"]["edges"]] == [2]
    assert run["gone"]["edges"] == [{"node": {"name": "c", "sizeBytes": 0, "md5": None}}]
