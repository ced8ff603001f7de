"""A server for each test, and a plain client for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import requests

from wb_ops.devserver import DevServer


@pytest.fixture
def server() -> Iterator[DevServer]:
    with DevServer(parquet_rows_per_file=10) as started:
        yield started


class Client:
    """Speaks GraphQL to a server with ``requests``, as the SDK would: no operation name."""

    def __init__(self, url: str, key: str) -> None:
        self._url = url
        self._auth = ("api", key)

    def post(self, query: str, **variables: Any) -> requests.Response:
        body = {"query": query, "variables": variables, "operationName": ""}
        return requests.post(self._url + "/graphql", json=body, auth=self._auth, timeout=30)

    def data(self, query: str, **variables: Any) -> Any:
        response = self.post(query, **variables)
        assert response.status_code == 200, response.text
        assert "errors" not in response.json(), response.text
        return response.json()["data"]

    def run(self, path: str, selection: str) -> Any:
        entity, project, name = path.split("/")
        query = (
            "query Q($e: String, $p: String, $r: String!) "
            f"{{project(name: $p, entityName: $e) {{run(name: $r) {{{selection}}}}}}}"
        )
        return self.data(query, e=entity, p=project, r=name)["project"]["run"]

    def names(self, **arguments: Any) -> list[str]:
        query = (
            'query Runs($f: JSONString, $o: String) {project(name: "p", entityName: "ann") '
            "{runs(filters: $f, order: $o, first: 1000) {edges {node {name}}}}}"
        )
        edges = self.data(query, **arguments)["project"]["runs"]["edges"]
        return [edge["node"]["name"] for edge in edges]


@pytest.fixture
def client(server: DevServer) -> Client:
    return Client(server.url, server.api_key)
