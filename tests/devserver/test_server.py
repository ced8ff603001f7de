"""The server as an object, a process, a fixture; its control routes and its request log."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests

from wb_ops.devserver import DEV_API_KEY, ApiKey, DevServer

VIEWER = "query Viewer {viewer {username}}"


def test_a_taken_port_fails_in_the_constructor(server: DevServer) -> None:
    port = int(server.url.rsplit(":", 1)[1])
    with pytest.raises(OSError, match="in use"):
        DevServer(port=port)


def test_closing_frees_the_ports() -> None:
    with DevServer() as server:
        port = int(server.url.rsplit(":", 1)[1])
    with socket.create_server(("127.0.0.1", port)) as again:
        assert again.getsockname()[1] == port


def test_short_keys_are_refused() -> None:
    with pytest.raises(ValueError, match="40"):
        DevServer(api_keys={"short": ApiKey()})


def test_a_database_file_outlives_the_server(tmp_path: Path) -> None:
    path = str(tmp_path / "dev.db")
    with DevServer(path=path) as first:
        first.seed_run("dev", "p", "r1", history=[{"x": 1}])
    with DevServer(path=path) as second:
        answer = requests.post(
            f"{second.url}/graphql",
            json={"query": '{project(name: "p") {run(name: "r1") {history}}}'},
            auth=("api", second.api_key),
            timeout=30,
        )
    assert answer.json()["data"]["project"]["run"]["history"] == ['{"_step": 0, "x": 1}']


def test_requests_are_logged_by_operation_without_showing_the_key(
    server: DevServer, client: Any
) -> None:
    client.data(VIEWER)
    client.data("query Named($x: String) {entity(name: $x) {name}}", x="ann")
    assert server.requests.operations() == ["Viewer", "Named"]
    record = server.requests[-1]
    assert (record.origin, record.status, record.variables) == ("api", 200, {"x": "ann"})
    assert record.has_authorization
    assert record.authorization is not None
    assert record.authorization not in repr(record)
    assert record.authorization not in json.dumps(record.to_json())


def test_control_routes_seed_edit_and_report(server: DevServer, client: Any) -> None:
    control = f"{server.url}/_dev"
    run = {"entity": "ann", "project": "p", "run_id": "r1", "history": ['{"_step": 0, "x": NaN}']}
    seeded = requests.post(f"{control}/seed", json={"runs": [run]}, timeout=30)
    assert len(seeded.json()["ids"]) == 1
    path = f"{control}/runs/ann/p/r1"
    assert requests.patch(path, json={"tags": ["late"], "state": "running"}, timeout=30).ok
    assert requests.post(f"{path}/history", json={"rows": ['{"_step": 1}']}, timeout=30).ok
    assert requests.post(f"{path}/finish", json={"exit_code": 1}, timeout=30).ok
    found = client.run("ann/p/r1", "tags state historyLineCount")
    assert found == {"tags": ["late"], "state": "failed", "historyLineCount": 2}
    [logged] = requests.get(f"{control}/requests", timeout=30).json()
    assert logged["operation"] == "Q"
    for refused in ({"typo": 1}, {"history": []}):
        assert requests.patch(path, json=refused, timeout=30).status_code == 400
    assert requests.delete(path, timeout=30).ok
    assert requests.delete(path, timeout=30).status_code == 404
    assert requests.patch(path, json={"tags": []}, timeout=30).status_code == 404


def test_control_routes_set_list_and_clear_faults(server: DevServer, client: Any) -> None:
    faults = f"{server.url}/_dev/faults"
    fault = {"match": {"operation": "Viewer"}, "respond": {"status": 503}, "times": None}
    assert requests.post(faults, json=fault, timeout=30).ok
    assert client.post(VIEWER).status_code == 503
    assert requests.get(faults, timeout=30).json()[0]["match"]["operation"] == "Viewer"
    assert requests.delete(faults, timeout=30).ok
    assert client.post(VIEWER).status_code == 200
    assert requests.post(faults, json={"match": {"typo": 1}}, timeout=30).status_code == 400


def test_reset_forgets_runs_faults_and_requests(server: DevServer, client: Any) -> None:
    server.seed_run("ann", "p", "r1")
    client.data(VIEWER)
    requests.post(f"{server.url}/_dev/reset", timeout=30)
    assert len(server.requests) == 0
    assert client.data('{project(name: "p", entityName: "ann") {id}}') == {"project": None}


def test_many_threads_read_and_write_at_once(server: DevServer, client: Any) -> None:
    ids = [server.seed_run("ann", "p", f"r{i}", summary={"n": 0}) for i in range(8)]
    upsert = (
        "mutation M($i: String, $s: JSONString) "
        "{upsertBucket(input: {id: $i, summaryMetrics: $s}) {bucket {id}}}"
    )

    def work(run_id: str) -> list[int]:
        for n in range(5):
            client.data(upsert, i=run_id, s=json.dumps({"n": n}))
        return [len(client.names(f='{"summary_metrics.n": {"$gte": 0}}')) for _ in range(3)]

    with ThreadPoolExecutor(8) as pool:
        counts = list(pool.map(work, ids))
    assert counts == [[8] * 3] * 8
    assert len(client.names(f='{"summary_metrics.n": 4}')) == 8


def test_unknown_fields_of_a_seed_are_refused(server: DevServer) -> None:
    with pytest.raises(TypeError, match="typo"):
        server.seed_run("ann", "p", "r1", typo=1)  # type: ignore[call-arg]  # that is the point
    with pytest.raises(ValueError, match="unknown run state"):
        server.seed_run("ann", "p", "r1", state="sleeping")


def test_the_command_prints_its_addresses_and_stops_on_a_signal(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "wb_ops.devserver", "--db", str(tmp_path / "dev.db")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            served = json.loads(process.stdout.readline())
            answer = requests.post(
                f"{served['url']}/graphql",
                json={"query": VIEWER},
                auth=("api", served["api_key"]),
                timeout=30,
            )
        finally:
            process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0
    assert answer.json() == {"data": {"viewer": {"username": "dev"}}}
    assert served["api_key"] == DEV_API_KEY


def test_the_fixture_gives_a_fresh_server(wandb_server: DevServer) -> None:
    assert len(wandb_server.requests) == 0
    assert wandb_server.url.startswith("http://127.0.0.1:")


def test_the_plugin_is_cheap_to_import() -> None:
    code = (
        "import sys, pytest\nbefore = set(sys.modules)\nimport wb_ops.devserver.pytest_plugin\n"
        "print(sorted({'starlette', 'uvicorn', 'graphql', 'pyarrow', 'pandas', 'sqlite3'} "
        "& (set(sys.modules) - before)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
