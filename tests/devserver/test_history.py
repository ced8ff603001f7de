"""History: windows, sampling, keys, and what ``file_stream`` brings in."""

from __future__ import annotations

import json
from typing import Any

import pytest
import requests

from wb_ops.devserver import DevServer


def stream(server: DevServer, body: dict[str, Any], run: str = "r1") -> requests.Response:
    return requests.post(
        f"{server.url}/files/ann/p/{run}/file_stream",
        json=body,
        auth=("api", server.api_key),
        timeout=30,
    )


def steps(lines: list[str]) -> list[int]:
    return [json.loads(line)["_step"] for line in lines]


def sampled(client: Any, **spec: Any) -> Any:
    document = json.dumps(json.dumps(spec))
    return client.run("ann/p/r1", f"sampledHistory(specs: [{document}])")["sampledHistory"][0]


def test_a_window_of_history_is_half_open_by_step(server: DevServer, client: Any) -> None:
    server.seed_run("ann", "p", "r1", history=[{"_step": i * 10, "x": i} for i in range(5)])
    run = client.run("ann/p/r1", "history(minStep: 10, maxStep: 30, samples: 100)")
    assert steps(run["history"]) == [10, 20]


@pytest.mark.parametrize(
    ("line", "step"),
    [
        ('{"_step": 7, "x": 1}', 7),
        ('{"x": {"_step": 3}, "_step": 7}', 7),
        ('{"x": {"_step": 3}}', 0),
        ('{"x": "\\"_step\\": 4,", "_step": 7.0}', 7),
        ("{}", 0),
    ],
)
def test_the_step_of_a_line_is_its_own(
    server: DevServer, client: Any, line: str, step: int
) -> None:
    """A line without one gets its number."""
    server.seed_run("ann", "p", "r1", history=[line])
    run = client.run("ann/p/r1", f"historyKeys history(minStep: {step}, maxStep: {step + 1})")
    assert run["historyKeys"]["lastStep"] == step
    assert steps(run["history"]) == [step]


def test_history_is_thinned_out_beyond_samples(server: DevServer, client: Any) -> None:
    server.seed_run("ann", "p", "r1", history=[{"x": i} for i in range(100)])
    run = client.run("ann/p/r1", "history(samples: 5) all: history events(samples: 2)")
    assert steps(run["history"]) == [0, 24, 49, 74, 99]
    assert len(run["all"]) == 100
    assert run["events"] == []


def test_sampled_history_holds_rows_with_all_keys_and_its_max_step(
    server: DevServer, client: Any
) -> None:
    rows = [{"a": 1, "n": {"b": i}} if i % 2 else {"a": 2} for i in range(10)]
    server.seed_run("ann", "p", "r1", history=rows)
    found = sampled(client, keys=["_step", "a", "n.b"], minStep=1, maxStep=5, samples=100)
    assert found == [{"_step": i, "a": 1, "n.b": i} for i in (1, 3, 5)]
    assert len(sampled(client, keys=["a"], samples=4)) == 4


def test_decoded_rows_name_special_floats(server: DevServer, client: Any) -> None:
    server.seed_run("ann", "p", "r1", history=['{"_step": 0, "x": NaN, "y": -Infinity}'])
    assert sampled(client, keys=["x", "y"]) == [{"x": "NaN", "y": "-Infinity"}]


def test_large_integers_are_whole_in_texts_and_in_decoded_rows(
    server: DevServer, client: Any
) -> None:
    server.seed_run("ann", "p", "r1", history=['{"_step": 0, "x": 1180591620717411303424, "y": 1}'])
    spec = json.dumps(json.dumps({"keys": ["x", "y"]}))
    run = client.run("ann/p/r1", f"history(samples: 9) sampledHistory(specs: [{spec}])")
    assert json.loads(run["history"][0])["x"] == 2**70
    assert run["sampledHistory"] == [[{"x": 2**70, "y": 1}]]


def test_history_keys_count_types_and_know_the_last_step(server: DevServer, client: Any) -> None:
    rows = [{"_step": 3, "x": 1, "n": {"y": "s"}}, {"_step": 9, "x": "two"}]
    server.seed_run("ann", "p", "r1", history=rows)
    server.seed_run("ann", "p", "empty")
    keys = client.run("ann/p/r1", "historyKeys")["historyKeys"]
    assert keys["lastStep"] == 9
    counts = [{"type": "number", "count": 1}, {"type": "string", "count": 1}]
    assert keys["keys"]["x"] == {"typeCounts": counts}
    assert keys["keys"]["n.y"] == {"typeCounts": [{"type": "string", "count": 1}]}
    server.append_history("ann", "p", "r1", [{"_step": 12, "x": 2}])
    assert client.run("ann/p/r1", "historyKeys")["historyKeys"]["lastStep"] == 12
    assert client.run("ann/p/empty", "historyKeys") == {"historyKeys": None}


def test_a_message_that_arrives_twice_changes_nothing(server: DevServer, client: Any) -> None:
    server.seed_run("ann", "p", "r1", state="running")
    chunk = {"offset": 0, "content": ['{"_step": 0, "x": NaN}', '{"_step": 1, "x": 2}']}
    for _ in range(2):
        assert stream(server, {"files": {"wandb-history.jsonl": chunk}}).json() == {}
    run = client.run("ann/p/r1", "historyLineCount history")
    assert run == {"historyLineCount": 2, "history": chunk["content"]}


def test_lines_sent_again_with_an_offset_replace_their_numbers(
    server: DevServer, client: Any
) -> None:
    server.seed_run("ann", "p", "r1", history=[{"_step": i, "x": i} for i in range(3)])
    chunk = {"offset": 1, "content": ['{"_step": 1, "x": 10}']}
    stream(server, {"files": {"wandb-history.jsonl": chunk}})
    rows = map(json.loads, client.run("ann/p/r1", "history")["history"])
    assert [row["x"] for row in rows] == [0, 10, 2]


@pytest.mark.parametrize(
    ("body", "state"),
    [
        ({"complete": True, "exitcode": 0}, "finished"),
        ({"complete": True, "exitcode": 3}, "failed"),
        ({"preempting": True}, "preempting"),
        ({}, "running"),
    ],
)
def test_the_stream_decides_the_state(
    server: DevServer, client: Any, body: dict[str, Any], state: str
) -> None:
    server.seed_run("ann", "p", "r1", state="crashed", created_at="2026-01-01T00:00:00")
    stream(server, body)
    run = client.run("ann/p/r1", "state heartbeatAt")
    assert run["state"] == state
    assert run["heartbeatAt"] > "2026-01-01T00:00:00"


def test_a_stopped_run_hears_of_it_with_its_next_message(server: DevServer, client: Any) -> None:
    run_id = server.seed_run("ann", "p", "r1", state="running")
    client.data("mutation S($i: ID!) {stopRun(input: {id: $i}) {success}}", i=run_id)
    assert stream(server, {}).json() == {"stopped": True}


def test_a_stream_to_an_unknown_run_is_404(server: DevServer) -> None:
    assert stream(server, {}, run="nope").status_code == 404
