"""For one server, this client and the real `wandb` 0.31 say the same of 200 messy runs.

What they differ in by intent is the list of defects in docs/client.md; each has its proof in
test_sdk_defects.py.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

import pytest

from wb_ops import Api, Run
from wb_ops.client.sweeps import Sweep
from wb_ops.devserver import DevServer

RUNS = 200
SEED = 31
STATES = (
    "finished",
    "running",
    "failed",
    "crashed",
    "killed",
    "preempting",
    "preempted",
    "pending",
)
TEXTS = (
    "plain",
    "grüße 🚀",
    "tab\there",
    "line\nbreak",
    "\x00\x01\x1f",
    "\ud800",
    "NaN",
    "",
    "'\"\\",
)
NUMBERS = (
    0, -1, 2**53 + 1, -(2**62), 0.1, 1.0, 1e308, 5e-324, -0.0,
    math.nan, math.inf, -math.inf, True, False, None,
)  # fmt: skip
KEYS = ("lr", "a/b", "a.b", "größe", "with space", "value", "desc", "Loss", "_private", "x" * 80)
HISTOGRAM = {"_type": "histogram", "values": [1, 2, 3], "bins": [0.0, 0.5, 1.0, 1.5]}
IMAGE = {"_type": "image-file", "path": "media/images/x_0.png", "size": 12, "width": 1, "height": 1}


def value(rng: random.Random, depth: int = 2) -> Any:
    kind = rng.random()
    if depth and kind < 0.15:
        return {rng.choice(KEYS): value(rng, depth - 1) for _ in range(rng.randrange(3))}
    if depth and kind < 0.25:
        return [value(rng, depth - 1) for _ in range(rng.randrange(3))]
    if kind < 0.3:
        return rng.choice((HISTOGRAM, IMAGE))
    return rng.choice(TEXTS) if kind < 0.55 else rng.choice(NUMBERS)


def document(rng: random.Random) -> dict[str, Any]:
    return {key: value(rng) for key in rng.sample(KEYS, rng.randrange(len(KEYS)))}


def raw_config(rng: random.Random) -> str:
    members: dict[str, Any] = {"_wandb": {"value": {"t": {"1": [1]}, "python_version": "3.11"}}}
    for key, content in document(rng).items():
        is_bare = rng.random() < 0.1 and not (isinstance(content, dict) and "value" in content)
        members[key] = content if is_bare else {"value": content, "desc": None}
    text = json.dumps(members)
    # A raw control character inside a string, as programs log it.
    return text.replace('"plain"', '"pl\tain"') if rng.random() < 0.2 else text


def history(rng: random.Random) -> list[dict[str, Any]]:
    step = rng.choice((0, 0, 7, 10**9))
    kinds = {key: rng.choice(("float", "int", "text", "bool", "media")) for key in KEYS[:5]}
    rows = []
    for _ in range(rng.choice((0, 1, 12, 25))):
        row: dict[str, Any] = {"_step": step, "_timestamp": 1.7e9 + step / 7, "_runtime": step / 7}
        row |= {key: cell(rng, kind) for key, kind in kinds.items() if rng.random() < 0.7}
        rows.append(row)
        step += rng.choice((1, 1, 1, 3, 900))
    return rows


def cell(rng: random.Random, kind: str) -> Any:
    if kind == "float":
        return rng.choice((0.1, 1.0, -2.5, 1e300, math.nan, math.inf, -math.inf))
    if kind == "int":
        return rng.choice((0, -5, 2**31, 2**53 - 1))
    if kind == "text":
        return rng.choice(("plain", "grüße 🚀", "NaN", "line\nbreak"))
    return rng.random() < 0.5 if kind == "bool" else HISTOGRAM


def messy_run(rng: random.Random, index: int) -> dict[str, Any]:
    words = [text for text in TEXTS if "\ud800" not in text and "\x00" not in text]
    rows = history(rng)
    state = STATES[index % len(STATES)]
    return {
        "entity": "ann", "project": "messy", "run_id": f"r{index:03}.x-{rng.randrange(99)}",
        "state": state, "display_name": rng.choice([*words, None]),
        "user": rng.choice(("ann", "bö")),
        "raw_config": raw_config(rng), "summary": json.dumps(document(rng)),
        "system_metrics": json.dumps(document(rng)), "tags": rng.sample(words, rng.randrange(4)),
        "notes": rng.choice([*words, None]), "description": rng.choice((None, "about", "")),
        "group": rng.choice((None, "g 1", "grüppe")), "job_type": rng.choice((None, "train")),
        "commit": rng.choice((None, "0123abc")), "sweep": rng.choice((None, "sw0", "sw1")),
        "read_only": rng.random() < 0.1, "history": rows,
        "parquet": rng.choice(("auto", "auto", "off")) if state != "running" else "auto",
        "created_at": f"2026-01-01T00:{index // 60:02}:{index % 60:02}.{index:03}000",
        "heartbeat_at": "2026-02-01T12:00:00",
        "events": [{"system.cpu": i / 3, "_timestamp": i} for i in range(index % 3)],
        "files": {
            "wandb-metadata.json": json.dumps({"os": rng.choice(TEXTS), "gpu": index}),
            "media/images/grüße 1.png": bytes(range(256)) * (index % 3),
            "out.json": "{}",
        } if index % 4 else {},
    }  # fmt: skip


@pytest.fixture(scope="module")
def messy() -> Iterator[DevServer]:
    rng = random.Random(SEED)
    with DevServer(parquet_rows_per_file=10) as server:
        for name, goal in (("sw0", "minimize"), ("sw1", "maximize")):
            config = {"method": "random", "name": f"sweep {name}", "parameters": {"lr": {"min": 0}}}
            metric = {"metric": {"name": "Loss", "goal": goal}}
            server.seed_sweep(
                entity="ann", project="messy", sweep_id=name, config={**config, **metric}
            )
        server.seed_runs(messy_run(rng, index) for index in range(RUNS))
        yield server


READING = """
from concurrent.futures import ThreadPoolExecutor
api = wandb.Api()
def first(found):
    return found and found.id
def is_tenth(run_id):
    return run_id[3] == "0"
def sweep_of(sweep):
    return sweep and [sweep.id, sweep.name, sweep.entity, sweep.project, sweep.path, sweep.url,
                      sweep.state, sweep.config, sweep.order, sweep.method, sweep.description,
                      sweep.expected_run_count, sweep.best_loss]
def read(run):
    steps = {"page_size": 10**6, "min_step": max(0, run.lastHistoryStep - 10**5)}
    return {
        "plain": [run.id, run.storage_id, run.name, run.display_name, run.state, run.entity,
                  run.project, run.path, run.url, run.group, run.job_type, run.tags, run.notes,
                  run.description, run.commit, run.read_only, run.sweep_name, run.lastHistoryStep,
                  run.history_keys, run.historyLineCount, run.user.username, run.user.name],
        "wire": [run.createdAt, run.heartbeatAt, run.displayName, run.jobType, run.sweepName],
        "times": [run.created_at, run.heartbeat_at],
        "config": dict(run.config), "rawconfig": run.rawconfig,
        "summary": run.summary._json_dict, "summary_metrics": run.summary_metrics,
        "system_metrics": run.system_metrics, "sweep": sweep_of(run.sweep),
        "metadata": run.metadata,
        "files": [[f.name, f.size, f.mimetype, f.md5, f.id] for f in run.files()],
        "json": [f.name for f in run.files(pattern="%.json")],
        "history": run.history(samples=9, pandas=False),
        "keyed": run.history(samples=9, keys=["lr", "a.b"], pandas=False),
        "system": run.history(stream="system", pandas=False),
        "frame": list(run.history(samples=9).columns) if is_tenth(run.id) else None,
        "scan": list(run.scan_history(**steps)),
    }
runs = api.runs("ann/messy", order="+created_at", per_page=70)
result["count"] = len(runs)
result["ids"] = [run.id for run in runs]
result["slices"] = [[run.id for run in runs[3:7]], runs[0].id]
result["orders"] = [[run.id for run in api.runs("ann/messy", order=order, per_page=200)]
                    for order in ("-created_at", "-heartbeat_at", "+summary_metrics.Loss",
                                  "-config.lr.value")]
result["filtered"] = [run.id for run in api.runs("ann/messy", {"state": "failed"}, per_page=200)]
result["histories"] = [
    api.runs("ann/messy", {"state": "failed"}, "+created_at").histories(samples=4),
    list(api.runs("ann/messy", {"state": "failed"}, "+created_at").histories(
        samples=4, format="pandas").columns),
]
result["viewer"] = [api.viewer.username, api.viewer.name, api.viewer.entity, api.viewer.email,
                    api.viewer.teams, api.default_entity]
projects = list(api.projects("ann"))
one = api.project("messy", "ann")
result["projects"] = [[p.name, p.entity, p.path, p.url, p.id] for p in [*projects, one]]
sweeps = one.sweeps()
result["sweeps"] = [sweep_of(sweep) for sweep in sweeps]
result["sweep_runs"] = [[run.id for run in api.sweep("ann/messy/sweeps/" + s.id).runs]
                        for s in sweeps]
result["best"] = [first(sweep.best_run("+config.lr.value")) for sweep in sweeps]
# Each of its calls waits for a process beside it: threads wait together.
with ThreadPoolExecutor(10) as pool:
    found = pool.map(lambda id: read(api.run("ann/messy/" + id)), result["ids"])
    result["runs"] = dict(zip(result["ids"], found))
"""


@pytest.fixture(scope="module")
def sdk(messy: DevServer, run_sdk: Callable[[DevServer, str], Any]) -> Any:
    return run_sdk(messy, READING)


@pytest.fixture(scope="module")
def ours(messy: DevServer) -> Iterator[Api]:
    with Api({"base_url": messy.url}, api_key=messy.api_key) as api:
        yield api


@pytest.fixture(scope="module")
def runs(ours: Api) -> list[Run]:
    listed = list(ours.runs("ann/messy", order="+created_at", per_page=1000))
    assert len(listed) == RUNS
    return listed


def sweep_facts(sweep: Sweep | None) -> list[Any] | None:
    return sweep and [
        sweep.id, sweep.name, sweep.entity, sweep.project, sweep.path, sweep.url,
        sweep.state, sweep.config, sweep.order, sweep.method, sweep.description,
        sweep.expected_run_count, sweep.best_loss,
    ]  # fmt: skip


def plain(run: Run) -> list[Any]:
    user = run.user
    assert user is not None
    return [
        run.id, run.storage_id, run.name, run.display_name, run.state, run.entity,
        run.project, run.path, run.url, run.group, run.job_type, run.tags, run.notes,
        run.description, run.commit, run.read_only, run.sweep_name, run.lastHistoryStep,
        run.history_keys, run.historyLineCount, user.username, user.name,
    ]  # fmt: skip


def is_tenth(run_id: str) -> bool:
    """The same request as that of "history", in another form."""
    return run_id[3] == "0"


def naive(moment: datetime | None) -> str:
    assert moment is not None
    assert moment.utcoffset() is not None
    return moment.replace(tzinfo=None).isoformat()


ASPECTS: dict[str, Callable[[Run], Any]] = {
    "plain": plain,
    "wire": lambda run: [
        run.createdAt, run.heartbeatAt, run.displayName, run.jobType, run.sweepName,
    ],
    "times": lambda run: [naive(run.created_at), naive(run.heartbeat_at)],
    "config": lambda run: run.config,
    "rawconfig": lambda run: run.rawconfig,
    "summary": lambda run: run.summary._json_dict,
    "summary_metrics": lambda run: run.summary_metrics,
    "system_metrics": lambda run: run.system_metrics,
    "sweep": lambda run: sweep_facts(run.sweep),
    "metadata": lambda run: run.metadata,
    "files": lambda run: [[f.name, f.size, f.mimetype, f.md5, f.id] for f in run.files()],
    "json": lambda run: [f.name for f in run.files(pattern="%.json")],
    "history": lambda run: run.history(samples=9, pandas=False),
    "keyed": lambda run: run.history(samples=9, keys=["lr", "a.b"], pandas=False),
    "system": lambda run: run.history(stream="system", pandas=False),
    "frame": lambda run: list(run.history(samples=9).columns) if is_tenth(run.id) else None,
    "scan": lambda run: list(run.scan_history()),
}  # fmt: skip


def exact(value: Any) -> str:
    """A text that tells 1 from 1.0, True from 1 and -0.0 from 0.0, and takes NaN for NaN."""
    return json.dumps(value, sort_keys=True)


def as_logged(rows: list[dict[str, Any]]) -> list[Any]:
    """Rows without cells that were not logged, and whole floats as such: the SDK keeps neither."""
    logged = [{key: cell for key, cell in row.items() if cell is not None} for row in rows]
    return [floats(row) for row in logged]


def floats(cell: Any) -> Any:
    if isinstance(cell, dict):
        return {key: floats(member) for key, member in cell.items()}
    if isinstance(cell, list):
        return [floats(member) for member in cell]
    return float(cell) if isinstance(cell, int) and not isinstance(cell, bool) else cell


@pytest.mark.slow
@pytest.mark.parametrize("aspect", ASPECTS)
def test_every_run_is_the_same(runs: list[Run], sdk: Any, aspect: str):
    with ThreadPoolExecutor(10) as pool:
        found = zip(runs, pool.map(ASPECTS[aspect], runs), strict=True)
    compared = as_logged if aspect == "scan" else exact
    differing = {
        run.id: (mine, theirs)
        for run, mine in found
        if exact(compared(mine)) != exact(compared(theirs := sdk["runs"][run.id][aspect]))
    }
    assert not differing


@pytest.mark.slow
def test_listings_are_the_same(ours: Api, sdk: Any):
    runs = ours.runs("ann/messy", order="+created_at", per_page=70)
    assert len(runs) == sdk["count"] == RUNS
    assert [run.id for run in runs] == sdk["ids"]
    assert [[run.id for run in runs[3:7]], runs[0].id] == sdk["slices"]
    orders = ("-created_at", "-heartbeat_at", "+summary_metrics.Loss", "-config.lr.value")
    assert [[run.id for run in ours.runs("ann/messy", order=o)] for o in orders] == sdk["orders"]
    failed = [run.id for run in ours.runs("ann/messy", {"state": "failed"}, "+created_at")]
    assert failed == sdk["filtered"]
    some = ours.runs("ann/messy", {"state": "failed"}, "+created_at")
    assert exact(some.histories(samples=4)) == exact(sdk["histories"][0])
    frame = some.histories(samples=4, format="pandas")
    assert list(frame.columns) == sdk["histories"][1]
    assert len(failed) == RUNS / len(STATES)


@pytest.mark.slow
def test_accounts_projects_and_sweeps_are_the_same(ours: Api, sdk: Any):
    viewer = ours.viewer
    assert [
        viewer.username, viewer.name, viewer.entity, viewer.email, list(viewer.teams),
        ours.default_entity,
    ] == sdk["viewer"]  # fmt: skip
    one = ours.project("messy", "ann")
    found = [*ours.projects("ann"), one]
    assert [[p.name, p.entity, p.path, p.url, p.id] for p in found] == sdk["projects"]
    sweeps = one.sweeps()
    assert [sweep_facts(sweep) for sweep in sweeps] == sdk["sweeps"]
    of_sweeps = [[run.id for run in ours.sweep(f"ann/messy/sweeps/{s.id}").runs] for s in sweeps]
    assert of_sweeps == sdk["sweep_runs"]
    best = [sweep.best_run("+config.lr.value") for sweep in sweeps]
    assert [run and run.id for run in best] == sdk["best"]
