"""A server for each test, a plain client for it, and the real SDK in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
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


@pytest.fixture(scope="session")
def run_sdk(tmp_path_factory: pytest.TempPathFactory) -> Callable[[DevServer, str], Any]:
    """Run code with the real ``wandb`` in a process that sees only the server.

    The code leaves its findings in ``result``.
    """

    def run(server: DevServer, code: str) -> Any:
        home = tmp_path_factory.mktemp("sdk")
        script = "import json, math, wandb\nresult = {}\n" + textwrap.dedent(code)
        script += f"\nopen({str(home / 'result.json')!r}, 'w').write(json.dumps(result))\n"
        done = subprocess.run(
            [sys.executable, "-c", script],
            env=_environment(server, home),
            cwd=home,
            capture_output=True,
            text=True,
            timeout=200,
        )
        found = home / "result.json"
        return json.loads(found.read_text()) if found.exists() else pytest.fail(done.stderr)

    return run


def _environment(server: DevServer, home: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WANDB")}
    folders = dict.fromkeys(
        ["HOME", "WANDB_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"], str(home)
    )
    own = {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": server.api_key, "WANDB_SILENT": "true"}
    return {**kept, **folders, **own, "WANDB_ERROR_REPORTING": "false"}
