"""What `wandb` 0.31 does that this client does not copy: each entry of docs/client.md, proven."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from wb_ops import Api, NotFound
from wb_ops.devserver import DevServer, Fault, Matcher, Responder

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "client.md").read_text(encoding="utf-8")
ROWS = [{"_step": step, "loss": 1.0, "n": 2**53 + 1, "deep": {"x": 1}} for step in range(4)]
ROWS[2] = {"_step": 2, "other": "text"}

READING = """
def attempt(read):
    try:
        return read()
    except Exception as error:
        return type(error).__name__
api = wandb.Api()
result["no user"] = attempt(lambda: [run.id for run in api.runs("ann/deleted", lazy=False)])
result["empty page"] = [len(api.runs("ann/gaps", per_page=2)),
                        [run.id for run in api.runs("ann/gaps", per_page=2)]]
result["n+1"] = [run.config["lr"] for run in api.runs("ann/gaps", order="-created_at")]
listed = api.runs("ann/one", lazy=False)[0]
result["unwrapped twice"] = [listed.config, sorted(listed.rawconfig)]
run = api.run("ann/one/r 1")
result["time"] = run.created_at
result["path"] = [run.path, attempt(lambda: api.run("/".join(run.path)).id)]
result["username"] = run.username
result["exported"], result["live"] = [list(api.run("ann/rows/" + name).scan_history())
                                      for name in ("exported", "live")]
result["half"] = [row["_step"] for row in api.run("ann/rows/half").scan_history()]
result["keys"] = list(api.run("ann/rows/exported").scan_history(keys=["loss"]))
numbers = api.run("ann/numbers/live")
result["numbers"] = [list(numbers.scan_history()), list(numbers.scan_history(keys=["n", "x"]))]
result["url"] = attempt(lambda: api.run("https://wandb.ai/ann/one/runs/r%201").id)
result["best"] = api.sweep("ann/rows/sw").best_run().id
result["missing file"] = [run.file("nothing.txt").name, run.file("nothing.txt").size]
result["files"] = len(run.files(pattern="%.json"))
"""
WRITING = """
mine, theirs = wandb.Api().run("ann/written/r1"), wandb.Api().run("ann/written/r1")
theirs.summary.update({"theirs": 1})
mine.tags.append("seen")
mine.update()
fresh = wandb.Api().run("ann/written/r1")
result["lost"] = sorted(fresh.summary.keys())
fresh.summary.update({"deep": {"nan": float("nan")}})
result["nan"] = wandb.Api().run("ann/written/r1").summary_metrics["deep"]
api = wandb.Api()
before = api.run("ann/written/r1").notes
other = wandb.Api().run("ann/written/r1")
other.notes = "new"
other.update()
result["stale"] = [api.run("ann/written/r1").notes, before]
"""


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server() -> Iterator[DevServer]:
    with DevServer(parquet_rows_per_file=10) as server:
        server.seed_run("ann", "deleted", "r1", user=None)
        for day in range(1, 6):
            created = f"2026-01-0{day}T00:00:00"
            server.seed_run("ann", "gaps", f"r{day}", config={"lr": day}, created_at=created)
        config = {"lr": 1, "nested": {"value": 2}, "_wandb": {"value": {"t": 1}}}
        server.seed_run(
            "ann", "one", "r 1", config=config, user="bea", created_at="2026-01-01T12:00:00",
            files={"a.json": "{}", "b.txt": "b"},
        )  # fmt: skip
        server.seed_sweep(
            entity="ann", project="rows", sweep_id="sw", config={"metric": {"name": "loss"}}
        )
        for name, parquet in (("exported", "auto"), ("live", "off"), ("half", 2)):
            server.seed_run(
                "ann", "rows", name, history=ROWS, parquet=parquet, sweep="sw",
                summary={} if name == "live" else {"loss": len(name)},
            )  # fmt: skip
        special = [{"_step": 0, "n": 2**53 + 1, "x": math.nan}]
        server.seed_run("ann", "numbers", "live", history=special, parquet="off")
        server.seed_run("ann", "written", "r1", summary={"loss": 1}, notes="old")
        yield server


@pytest.fixture(scope="module")
def sdk(server: DevServer, run_sdk: Callable[[DevServer, str], Any]) -> Any:
    second = Matcher(operation="Runs", nth=3)
    server.faults.add(Fault(second, Responder.odd("empty_page")))
    return {**run_sdk(server, READING + WRITING), "requests": list(server.requests)}


@pytest.fixture
def api(server: DevServer, sdk: Any) -> Iterator[Api]:
    """The SDK has been here first, so that what it wrote is seen."""
    server.requests.clear()
    server.faults.clear()
    with Api({"base_url": server.url}, api_key=server.api_key) as api:
        yield api


def test_a_deleted_account_ends_no_listing(api: Api, sdk: Any):
    assert sdk["no user"] == "TypeError"
    assert [(run.id, run.user) for run in api.runs("ann/deleted")] == [("r1", None)]


def test_an_empty_page_is_not_the_end(api: Api, server: DevServer, sdk: Any):
    assert sdk["empty page"] == [5, ["r1", "r2"]]
    server.faults.add(Fault(Matcher(operation="Runs", nth=2), Responder.odd("empty_page")))
    assert len(list(api.runs("ann/gaps", per_page=2))) == 5


def test_a_listing_brings_config_and_summary(api: Api, server: DevServer, sdk: Any):
    asked = [one for one in sdk["requests"] if one.variables.get("project") == "gaps"]
    assert [one.operation for one in asked].count("Run") == 5
    assert [run.config["lr"] for run in api.runs("ann/gaps")] == sdk["n+1"]
    assert server.requests.operations() == ["Runs"]


def test_config_is_unwrapped_once(api: Api, sdk: Any):
    config, raw = sdk["unwrapped twice"]
    assert (config["nested"], raw) == (2, ["lr", "nested"])
    listed = api.runs("ann/one")[0]
    assert listed.config["nested"] == {"value": 2}
    assert listed.rawconfig["_wandb"] == {"t": 1}


def test_times_have_a_zone(api: Api, sdk: Any):
    assert datetime.fromisoformat(sdk["time"]).tzinfo is None
    run = api.run("ann/one/r 1")
    assert run.created_at == datetime(2026, 1, 1, 12, tzinfo=UTC)
    assert run.createdAt == sdk["time"]


def test_a_path_leads_back_to_its_run(api: Api, sdk: Any):
    assert sdk["path"] == [["ann", "one", "r%201"], "CommError"]
    run = api.run("ann/one/r 1")
    assert api.run("/".join(run.path)).id == run.id
    assert run.url.endswith("/ann/one/runs/r%201")


def test_username_is_who_started_the_run(api: Api, sdk: Any):
    assert sdk["username"] == "ann", "the entity"
    assert api.run("ann/one/r 1").username == "bea"


def test_rows_look_the_same_before_and_after_their_export(api: Api, sdk: Any):
    assert sdk["exported"][2] == {"_step": 2, "loss": None, "n": None, "deep.x": None,
                                  "other": "text"}  # fmt: skip
    assert sdk["live"][0]["deep"] == {"x": 1}
    exported, live = (list(api.run(f"ann/rows/{name}").scan_history())
                      for name in ("exported", "live"))  # fmt: skip
    assert exported == live
    assert exported[2] == {"_step": 2, "other": "text"}
    assert exported[0]["deep.x"] == 1


def test_a_float_stays_a_float(api: Api, sdk: Any):
    assert {type(row.get("loss")) for row in sdk["exported"]} == {int, type(None)}
    assert type(next(api.run("ann/rows/exported").scan_history())["loss"]) is float


def test_no_row_comes_twice(api: Api, sdk: Any):
    assert sdk["half"] == [0, 0, 1, 1, 2, 3]
    assert [row["_step"] for row in api.run("ann/rows/half").scan_history()] == [0, 1, 2, 3]


def test_keys_leave_out_the_rows_without_them(api: Api, sdk: Any):
    assert {"_step": 2, "loss": None} in sdk["keys"]
    steps = [row["_step"] for row in api.run("ann/rows/exported").scan_history(keys=["loss"])]
    assert steps == [0, 1, 3]


def test_keys_leave_numbers_as_they_are(api: Api, sdk: Any):
    whole, keyed = sdk["numbers"]
    assert whole[0]["n"] == 2**53 + 1
    assert keyed == [{"_step": 0, "n": 2**53, "x": "NaN"}]
    run = api.run("ann/numbers/live")
    (row,) = run.scan_history(keys=["n", "x"])
    assert (row["n"], repr(row["x"])) == (2**53 + 1, "nan")


def test_the_address_of_a_page_is_a_path(api: Api, sdk: Any):
    assert sdk["url"] == "CommError"
    assert api.run("https://wandb.ai/ann/one/runs/r%201").id == "r 1"


def test_the_best_run_has_logged_the_metric(api: Api, sdk: Any):
    assert sdk["best"] == "live", "a run without loss"
    best = api.sweep("ann/rows/sw").best_run()
    assert best is not None
    assert best.id == "half"


def test_a_file_that_is_not_there_is_an_error(api: Api, sdk: Any):
    assert sdk["missing file"] == ["nothing.txt", 0]
    with pytest.raises(NotFound):
        api.run("ann/one/r 1").file("nothing.txt")


def test_the_length_of_a_list_of_files_is_its_own(api: Api, sdk: Any):
    assert sdk["files"] == 2
    assert len(api.run("ann/one/r 1").files(pattern="%.json")) == 1


def test_a_tag_does_not_undo_the_summary_of_others(api: Api, server: DevServer, sdk: Any):
    assert sdk["lost"] == ["loss"], "`theirs` is gone"
    server.seed_run("ann", "written", "r2", summary={"loss": 1})
    mine, theirs = api.run("ann/written/r2"), api.run("ann/written/r2")
    theirs.summary.update({"theirs": 1})
    mine.tags.append("seen")
    mine.update()
    assert dict(api.run("ann/written/r2").summary) == {"loss": 1, "theirs": 1}


def test_nan_is_written_as_nan(api: Api, server: DevServer, sdk: Any):
    assert sdk["nan"] == {"nan": None}
    server.seed_run("ann", "written", "r3")
    api.run("ann/written/r3").summary.update({"deep": {"nan": float("nan")}, "inf": float("inf")})
    written = api.run("ann/written/r3").summary
    assert repr(written["deep"]["nan"]) == "nan"
    assert written["inf"] == float("inf")


def test_a_run_is_read_anew(api: Api, server: DevServer, sdk: Any):
    assert sdk["stale"] == ["old", "old"]
    server.seed_run("ann", "written", "r4", notes="old")
    assert api.run("ann/written/r4").notes == "old"
    server.edit_run("ann", "written", "r4", notes="new")
    assert api.run("ann/written/r4").notes == "new"


def test_the_page_names_each_proof_and_no_other():
    named = re.findall(r"`(test_\w+)`", PAGE)
    proofs = [name for name in globals() if name.startswith("test_") and "each_proof" not in name]
    assert named == proofs
