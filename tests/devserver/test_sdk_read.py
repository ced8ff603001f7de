"""The real SDK reads from the server what was seeded, and changes it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from wb_ops.devserver import DevServer, Fault, Matcher, Responder

ROWS = 25
READING = """
api = wandb.Api()
result["viewer"] = [api.viewer.username, api.default_entity]
result["projects"] = [project.name for project in api.projects("ann")]
runs = api.runs("ann/p", order="+created_at", per_page=2)
result["listed"] = [[run.id, run.name, run.state, run.user.username] for run in runs]
result["count"] = len(runs)
result["filtered"] = [run.id for run in api.runs("ann/p", filters={"config.lr": {"$lt": 0.15}})]
result["by_metric"] = [run.id for run in api.runs("ann/p", order="-summary_metrics.loss")]
result["full"] = [[run.id, run.config, run.summary.get("loss")]
                  for run in api.runs("ann/p", order="+created_at", lazy=False)]
def read(name):
    run = api.run("ann/p/" + name)
    return {
        "scan": list(run.scan_history(page_size=7)),
        "scan_keys": list(run.scan_history(keys=["loss", "a.b"], page_size=7)),
        "history": run.history(pandas=False),
        "history_keys": run.history(keys=["loss"], samples=10, pandas=False),
        "system": run.history(stream="system", pandas=False),
        "last_step": run.lastHistoryStep,
        "metadata": run.metadata,
        "file": run.file("wandb-metadata.json").download(root="dl", replace=True).read(),
    }
result["runs"] = {name: read(name) for name in ("done", "live", "half")}
logged = api.run("ann/p/done").console_logs(last=2)
result["console"] = [line.content for line in logged]
missing = []
for path in ("ann/p/nope", "ann/nope/nope"):
    try:
        api.run(path)
    except wandb.errors.CommError as error:
        missing.append(str(error))
result["missing"] = missing
exports = api.run("ann/p/done").download_history_exports("exports")
result["exports"] = len(exports.paths)
"""
CHANGING = """
api = wandb.Api()
run = api.run("ann/p/done")
open("up.txt", "w").write("hi")
run.upload_file("up.txt")
result["uploaded"] = run.file("up.txt").size
run.file("up.txt").delete()
result["files"] = [file.name for file in wandb.Api().run("ann/p/done").files()]
run.summary.update({"best": 0.25})
run.tags.append("seen"); run.name = "renamed"; run.config["added"] = 1
run.update()
api.run("ann/p/half").delete()
result["left"] = [run.id for run in api.runs("ann/p", order="+created_at")]
api.run("ann/p/live").update_state("failed")
api.create_run(project="p", entity="ann", run_id="made")
changed = wandb.Api().run("ann/p/done")
result["changed"] = [dict(changed.summary), changed.tags, changed.name, dict(changed.config)]
result["states"] = {run.id: run.state for run in wandb.Api().runs("ann/p")}
"""


def seeded() -> DevServer:
    server = DevServer(parquet_rows_per_file=10)
    rows = [{"_step": i, "loss": 1 / (i + 1), "a": {"b": i}, "_timestamp": i} for i in range(ROWS)]
    metadata = {"wandb-metadata.json": '{"host": "box"}'}
    events = [{"system.cpu": i / 2, "_timestamp": i, "_wandb": True} for i in range(3)]
    for day, (name, state, parquet) in enumerate(
        [("done", "finished", "auto"), ("live", "running", "auto"), ("half", "running", 12)], 1
    ):
        server.seed_run(
            "ann",
            "p",
            name,
            config={"lr": day / 10},
            history=rows,
            summary={"loss": day},
            events=events,
            state=state,
            parquet=parquet,
            files=metadata,
            log=["2026-01-01T00:00:00.5 one", "2026-01-01T00:00:01.5 two"],
            created_at=f"2026-01-0{day}T00:00:00",
        )
    return server


@pytest.fixture(scope="module")
def read(run_sdk: Callable[[DevServer, str], Any]) -> Iterator[Any]:
    with seeded() as server:
        server.faults.add(Fault(Matcher(operation="Runs"), Responder.rate_limited(0.1)))
        yield {**run_sdk(server, READING), "requests": list(server.requests)}


def test_the_account_and_its_projects(read: Any) -> None:
    assert read["viewer"] == ["dev", "dev"]
    assert read["projects"] == ["p"]


def test_listings_page_filter_and_order(read: Any) -> None:
    assert [entry[0] for entry in read["listed"]] == ["done", "live", "half"]
    assert read["listed"][0] == ["done", "done", "finished", "dev"]
    assert read["count"] == 3
    assert read["filtered"] == ["done"]
    assert read["by_metric"] == ["half", "live", "done"]
    assert read["full"][0] == ["done", {"lr": 0.1}, 1]


@pytest.mark.parametrize("name", ["done", "live", "half"])
def test_scan_history_gives_every_row(read: Any, name: str) -> None:
    """Through parquet, through pages, and through both."""
    rows = read["runs"][name]["scan"]
    assert {row["_step"] for row in rows} == set(range(ROWS))
    losses = {row["_step"]: row["loss"] for row in rows}
    assert losses == {i: 1 / (i + 1) for i in range(ROWS)}


@pytest.mark.parametrize("name", ["done", "live", "half"])
def test_scan_history_with_keys_gives_those_keys(read: Any, name: str) -> None:
    rows = {row["_step"]: row for row in read["runs"][name]["scan_keys"]}
    assert set(rows) == set(range(ROWS))
    assert rows[3]["loss"] == 0.25
    assert rows[3]["a.b"] == 3


@pytest.mark.parametrize("name", ["done", "live", "half"])
def test_history_is_sampled_and_system_metrics_are_a_stream(read: Any, name: str) -> None:
    run = read["runs"][name]
    assert [row["_step"] for row in run["history"]] == list(range(ROWS))
    assert len(run["history_keys"]) == 10
    assert [row["system.cpu"] for row in run["system"]] == [0, 0.5, 1]
    assert run["last_step"] == ROWS - 1


def test_the_sdk_waits_out_a_rate_limit(read: Any) -> None:
    statuses = [record.status for record in read["requests"] if record.operation == "Runs"]
    assert statuses[:2] == [429, 200]


def test_console_lines_and_missing_runs(read: Any) -> None:
    assert read["console"] == ["one", "two"]
    assert len(read["missing"]) == 2
    assert all("Could not find run" in message for message in read["missing"])


def test_files_and_metadata_are_readable(read: Any) -> None:
    assert read["runs"]["done"]["metadata"] == {"host": "box"}
    assert read["runs"]["done"]["file"] == '{"host": "box"}'


def test_exports_are_fetched_from_storage_without_credentials(read: Any) -> None:
    fetched = [record for record in read["requests"] if record.path.startswith("/exports/")]
    assert read["exports"] == 3
    assert {record.status for record in fetched} <= {200, 206}
    assert not any(record.has_authorization for record in fetched)


def test_the_sdk_changes_deletes_and_creates_runs(
    run_sdk: Callable[[DevServer, str], Any],
) -> None:
    with seeded() as server:
        result = run_sdk(server, CHANGING)
    summary, tags, name, config = result["changed"]
    assert summary == {"loss": 1, "best": 0.25}
    assert (tags, name, config) == (["seen"], "renamed", {"lr": 0.1, "added": 1})
    assert (result["uploaded"], result["files"]) == (2, ["wandb-metadata.json"])
    assert result["left"] == ["done", "live"]
    assert result["states"] == {"made": "running", "done": "finished", "live": "failed"}
