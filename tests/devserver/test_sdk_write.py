"""The real SDK logs to the server: what ``wandb.init``, ``log`` and ``finish`` leave behind."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests

from wb_ops.devserver import DevServer

LOGGING = """
run = wandb.init(entity="ann", project="sdk", id="w1", name="nice", tags=["a", "b"], notes="note",
                 config={"lr": 0.1, "net": {"n": 3}}, group="g", job_type="train")
for i in range(12):
    run.log({"loss": 1 / (i + 1), "nested": {"x": i}, "odd": math.inf if i == 3 else math.nan,
             "big": 2**60 + i, "hist": wandb.Histogram([1, 2, 3])})
print("hello from training")
run.summary["best"] = 0.5
run.finish()
run = wandb.init(entity="ann", project="sdk", id="w1", resume="must")
run.log({"loss": 7.5})
run.finish()
wandb.init(entity="ann", project="sdk", id="w2").finish(exit_code=1)
"""
SELECTION = """
{project(name: "sdk", entityName: "ann") {w1: run(name: "w1") {...R} w2: run(name: "w2") {...R}}}
fragment R on Run {state displayName group jobType tags notes config summaryMetrics user {username}
  historyLineCount eventsLineCount history(samples: 1000) host program
  logLines {edges {node {line}}} files {edges {node {name}}}}
"""


@pytest.fixture(scope="module")
def runs(run_sdk: Callable[[DevServer, str], Any]) -> Iterator[Any]:
    with DevServer() as server:
        run_sdk(server, LOGGING)
        answer = requests.post(
            f"{server.url}/graphql",
            json={"query": SELECTION},
            auth=("api", server.api_key),
            timeout=30,
        )
        yield {**answer.json()["data"]["project"], "requests": list(server.requests)}


def test_what_init_says_is_kept(runs: Any) -> None:
    run = runs["w1"]
    assert (run["displayName"], run["group"], run["jobType"]) == ("nice", "g", "train")
    assert (run["tags"], run["notes"]) == (["a", "b"], "note")
    assert run["user"]["username"] == "dev"
    config = json.loads(run["config"])
    assert config["lr"] == {"value": 0.1}
    assert config["net"] == {"value": {"n": 3}}
    assert "_wandb" in config


def test_every_row_arrives_as_it_was_logged(runs: Any) -> None:
    rows = [json.loads(line) for line in runs["w1"]["history"]]
    assert [row["_step"] for row in rows] == list(range(13))
    assert [row["loss"] for row in rows] == [*(1 / (i + 1) for i in range(12)), 7.5]
    assert [row["big"] for row in rows[:12]] == [2**60 + i for i in range(12)]
    assert rows[3]["odd"] == float("inf")
    assert rows[0]["odd"] != rows[0]["odd"]
    assert "NaN" in runs["w1"]["history"][0]


def test_a_resumed_run_goes_on_after_its_last_step(runs: Any) -> None:
    assert runs["w1"]["historyLineCount"] == 13
    assert json.loads(runs["w1"]["summaryMetrics"])["_step"] == 12


def test_the_summary_holds_what_was_set(runs: Any) -> None:
    summary = json.loads(runs["w1"]["summaryMetrics"])
    assert (summary["best"], summary["loss"]) == (0.5, 7.5)


def test_the_exit_code_decides_the_state(runs: Any) -> None:
    assert (runs["w1"]["state"], runs["w2"]["state"]) == ("finished", "failed")


def test_system_metrics_console_and_files_arrive(runs: Any) -> None:
    run = runs["w1"]
    assert run["eventsLineCount"] > 0
    lines = [edge["node"]["line"] for edge in run["logLines"]["edges"]]
    assert any("hello from training" in line for line in lines)
    names = {edge["node"]["name"] for edge in run["files"]["edges"]}
    assert {"wandb-metadata.json", "requirements.txt", "config.yaml"} <= names


def test_uploads_go_to_the_storage_origin_without_credentials(runs: Any) -> None:
    uploads = [record for record in runs["requests"] if record.method == "PUT"]
    assert uploads
    assert {record.origin for record in uploads} == {"storage"}
    assert not any(record.has_authorization for record in uploads)
