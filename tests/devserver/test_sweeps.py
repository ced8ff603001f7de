"""Sweeps, and the exchange of identity tokens, as a plain client sees them."""

from __future__ import annotations

from typing import Any

import pytest
import requests

from wb_ops.devserver import ApiKey, DevServer

QUERY = """query GetSweeps($after: String) {project(name: "p", entityName: "ann") {
  totalSweeps
  sweeps(first: 2, after: $after) {
    edges {node {name method bestLoss runCount config}} pageInfo {endCursor hasNextPage}
  }
  sweep(sweepName: "nope") {name}
}}"""
GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"


@pytest.mark.parametrize(("goal", "best"), [("minimize", 0.25), ("maximize", 4.0)])
def test_sweeps_come_in_pages(server: DevServer, client: Any, goal: str, best: float) -> None:
    for number in range(3):
        text = f"method: grid\nmetric: {{name: loss, goal: {goal}}}\n"
        server.seed_sweep(entity="ann", project="p", sweep_id=f"s{number}", config=text)
    for name, loss in (("a", "0.25"), ("b", "4"), ("c", "NaN")):
        server.seed_run("ann", "p", name, sweep="s0", summary=f'{{"loss": {loss}}}')
    first = client.data(QUERY)["project"]
    assert (first["totalSweeps"], first["sweep"]) == (3, None)
    node = first["sweeps"]["edges"][0]["node"]
    assert (node["name"], node["method"], node["bestLoss"], node["runCount"]) == (
        "s0", "grid", best, 3,
    )  # fmt: skip
    assert node["config"].startswith("method: grid")
    info = first["sweeps"]["pageInfo"]
    assert info["hasNextPage"]
    last = client.data(QUERY, after=info["endCursor"])["project"]["sweeps"]
    assert [edge["node"]["name"] for edge in last["edges"]] == ["s2"]
    assert not last["pageInfo"]["hasNextPage"]


def test_a_project_takes_its_sweeps_along(server: DevServer, client: Any) -> None:
    server.seed_sweep(entity="ann", project="p", sweep_id="s0", config={"method": "grid"})
    server.delete_project("ann", "p")
    server.seed_run("ann", "p", "r1")
    assert client.data(QUERY)["project"]["totalSweeps"] == 0


def test_other_processes_seed_sweeps(server: DevServer, client: Any) -> None:
    seed = {"entity": "ann", "project": "p", "sweep_id": "s0", "config": {"method": "grid"}}
    answer = requests.post(f"{server.url}/_dev/sweeps", json={"sweeps": [seed]}, timeout=10)
    assert answer.status_code == 200
    assert client.data(QUERY)["project"]["totalSweeps"] == 1


def token(server: DevServer, **form: str) -> requests.Response:
    return requests.post(f"{server.url}/oidc/token", data=form, timeout=10)


def viewer(server: DevServer, token: str) -> requests.Response:
    body = {"query": "{viewer {username}}"}
    headers = {"Authorization": f"Bearer {token}"}
    return requests.post(f"{server.url}/graphql", json=body, headers=headers, timeout=10)


@pytest.mark.parametrize(("ttl_s", "status"), [(60, 200), (0, 401)])
def test_a_token_is_given_for_a_known_identity_and_ends(ttl_s: int, status: int) -> None:
    identities = {"a.b.c": ApiKey("ci")}
    with DevServer(identity_tokens=identities, access_token_ttl_s=ttl_s) as server:
        assert token(server, grant_type=GRANT, assertion="x.y.z").status_code == 401
        assert token(server, grant_type="password", assertion="a.b.c").status_code == 400
        given = token(server, grant_type=GRANT, assertion="a.b.c").json()
        assert given["expires_in"] == ttl_s
        assert viewer(server, given["access_token"]).status_code == status
        assert viewer(server, "made up").status_code == 401
