"""For one server, this client and the real `wandb` 0.31 say the same of 200 messy runs.

What they differ in by intent is the list of defects in docs/client.md; each has its proof in
test_sdk_defects.py.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

import pandas as pd
import pytest
from messy_projects import RUNS, STATES, messy_runs, writable_run

from wb_ops import Api, Run
from wb_ops.client.sweeps import Sweep
from wb_ops.devserver import DevServer

WRITTEN = 24


@pytest.fixture(scope="module")
def messy() -> Iterator[DevServer]:
    with DevServer(parquet_rows_per_file=10) as server:
        for name, goal in (("sw0", "minimize"), ("sw1", "maximize")):
            config = {"method": "random", "name": f"sweep {name}", "parameters": {"lr": {"min": 0}}}
            metric = {"metric": {"name": "Loss", "goal": goal}}
            server.seed_sweep(
                entity="ann", project="messy", sweep_id=name, config={**config, **metric}
            )
        server.seed_runs(messy_runs())
        yield server


# What both do to a run; the name says which of them did.
EDITING = """
def edit(run, index):
    summary, config, tags = run.summary, run.config, run.tags
    if index % 2:
        run.summary.update({"new": index / 3, "big": 2**53 + 1, "deep": {"x": [1, 2.5], "y": None}})
    if index % 3 == 0:
        run.summary["Loss"] = "grüße"
        run.summary.update()
    if index % 4 == 0 and "value" in run.summary.keys():
        del run.summary["value"]
        run.summary.update()
    run.config["added"] = {"value": [index, 1e-7, {"desc": True}]}
    run.config.pop("lr", None)
    run.tags.append("seen")
    if index % 2 == 0:
        run.notes, run.name = f"note {index}", f"name {index}"
    if index % 5 == 0:
        run.group, run.job_type, run.description = f"group {index}", "evaluate", "described"
    run.update()
    summary["held"], config["held"] = index, index
    tags.append("held")
    run.update()
def facts(run):
    return [dict(run.config), run.rawconfig, run.summary._json_dict, run.tags, run.notes, run.name,
            run.group, run.job_type, run.description]
"""


@pytest.fixture(scope="module")
def ours(messy: DevServer) -> Iterator[Api]:
    with Api({"base_url": messy.url}, api_key=messy.api_key) as api:
        yield api


@pytest.fixture(scope="module")
def both(messy: DevServer, ours: Api) -> dict[str, Any]:
    """Two projects alike; one of them was written to by us. Gives what EDITING defines."""
    defined: dict[str, Any] = {}
    exec(EDITING, defined)
    for project in ("mine", "theirs"):
        messy.seed_runs(writable_run(index, project) for index in range(WRITTEN))
    for index in range(WRITTEN):
        defined["edit"](ours.run(f"ann/mine/w{index}"), index)
    return defined


READING = """
import hashlib
from concurrent.futures import ThreadPoolExecutor
api = wandb.Api()
def first(found):
    return found and found.id
def is_tenth(run_id):
    return run_id[3] == "0"
def text_of(frame):
    types = [[name, str(dtype)] for name, dtype in frame.dtypes.items()]
    return [types, [[repr(cell) for cell in row] for row in frame.itertuples()]]
def digests(run):
    opened = [(f.name, f.download(root="copies/" + run.id)) for f in run.files()]
    return {name: hashlib.sha256(open(f.name, "rb").read()).hexdigest() for name, f in opened}
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
        "frame": text_of(run.history(samples=9)) if is_tenth(run.id) else None,
        "scan": list(run.scan_history(**steps)),
        "x axis": run.history(samples=9, keys=["lr"], x_axis="_runtime", pandas=False),
        "bytes": digests(run),
        **scans(run),
    }
def scans(run):
    stop = max(1, run.lastHistoryStep)
    steps = {"page_size": 500, "min_step": max(0, stop - 1800), "max_step": stop}
    return {
        "window": list(run.scan_history(**steps)),
        "window of keys": list(run.scan_history(keys=["lr", "a/b"], **steps)),
        "narrow": list(run.scan_history(min_step=max(0, stop - 3), page_size=1)),
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
def write(index):
    edit(api.run(f"ann/theirs/w{index}"), index)
with ThreadPoolExecutor(10) as pool:
    list(pool.map(write, range(WRITTEN)))
fresh = wandb.Api()
result["written"] = {name: [facts(fresh.run(f"ann/{name}/w{at}")) for at in range(WRITTEN)]
                     for name in ("mine", "theirs")}
"""


@pytest.fixture(scope="module")
def sdk(messy: DevServer, both: Any, run_sdk: Callable[[DevServer, str], Any]) -> Any:
    return run_sdk(messy, f"WRITTEN = {WRITTEN}\n" + EDITING + READING)


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


def text_of(frame: pd.DataFrame) -> list[Any]:
    """Its columns with their types, and its cells; NaN is no value that equals itself."""
    types = [[name, str(dtype)] for name, dtype in frame.dtypes.items()]
    return [types, [[repr(cell) for cell in row] for row in frame.itertuples()]]


def is_tenth(run_id: str) -> bool:
    """The same request as that of "history", in another form."""
    return run_id[3] == "0"


def digests(run: Run) -> dict[str, str]:
    return {file.name: hashlib.sha256(file.read()).hexdigest() for file in run.files()}


def window(run: Run, width: int = 1800, **chosen: Any) -> list[dict[str, Any]]:
    """Some of the last rows."""
    stop = max(1, run.lastHistoryStep)
    first = max(0, stop - width)
    stops = {} if width == 3 else {"max_step": stop}
    return list(run.scan_history(page_size=500, min_step=first, **stops, **chosen))


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
    "frame": lambda run: text_of(run.history(samples=9)) if is_tenth(run.id) else None,
    "scan": lambda run: list(run.scan_history()),
    "x axis": lambda run: run.history(samples=9, keys=["lr"], x_axis="_runtime", pandas=False),
    "bytes": digests,
    "window": window,
    # The SDK says that several keys mean all of them; here they mean any, unless that is required.
    "window of keys": lambda run: window(run, keys=["lr", "a/b"], require="all"),
    "narrow": lambda run: window(run, width=3),
}  # fmt: skip


def exact(value: Any) -> str:
    """A text that tells 1 from 1.0, True from 1 and -0.0 from 0.0, and takes NaN for NaN."""
    return json.dumps(value, sort_keys=True)


def as_logged(rows: list[dict[str, Any]] | None) -> list[Any] | None:
    """Rows without cells that were not logged, whole floats as integers: the SDK keeps neither."""
    if rows is None:
        return None
    logged = [{key: cell for key, cell in row.items() if cell is not None} for row in rows]
    return [whole(row) for row in logged]


def whole(cell: Any) -> Any:
    if isinstance(cell, dict):
        return {key: whole(member) for key, member in cell.items()}
    if isinstance(cell, list):
        return [whole(member) for member in cell]
    return int(cell) if isinstance(cell, float) and cell.is_integer() else cell


def with_both(rows: list[dict[str, Any]] | None) -> list[Any] | None:
    """The rows that hold both keys, with numbers as the SDK gives those of live rows."""
    both = [row for row in as_logged(rows) or [] if {"lr", "a/b"} <= row.keys()]
    return [{key: rounded(cell) for key, cell in row.items()} for row in both]


def rounded(cell: Any) -> Any:
    if isinstance(cell, float) and not math.isfinite(cell):
        return "NaN" if math.isnan(cell) else "Infinity" if cell > 0 else "-Infinity"
    return int(float(cell)) if type(cell) is int else cell


COMPARED: dict[str, Callable[[Any], Any]] = {
    "scan": as_logged, "window": as_logged, "narrow": as_logged, "window of keys": with_both,
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("aspect", ASPECTS)
def test_every_run_is_the_same(runs: list[Run], sdk: Any, aspect: str):
    with ThreadPoolExecutor(10) as pool:
        found = zip(runs, pool.map(ASPECTS[aspect], runs), strict=True)
    compared = COMPARED.get(aspect, exact)
    differing = {
        run.id: (mine, theirs)
        for run, mine in found
        if exact(compared(mine)) != exact(compared(theirs := sdk["runs"][run.id].get(aspect)))
    }
    assert not differing


@pytest.mark.slow
def test_rows_are_those_that_were_logged(runs: list[Run]):
    """Also where the SDK cannot tell: an integer is one, and a whole float is none."""
    logged = {run["run_id"]: run["history"] for run in messy_runs()}
    with ThreadPoolExecutor(10) as pool:
        found = pool.map(lambda run: list(run.scan_history()), runs)
    differing = [
        run.id
        for run, rows in zip(runs, found, strict=True)
        if exact(rows) != exact(logged[run.id])
    ]
    assert not differing


@pytest.mark.slow
def test_what_either_writes_is_the_same_for_both(ours: Api, both: Any, sdk: Any):
    for index in range(WRITTEN):
        mine, theirs = (
            both["facts"](ours.run(f"ann/{name}/w{index}")) for name in ("mine", "theirs")
        )
        assert "added" in mine[0]
        assert exact(mine) == exact(theirs)
        assert exact(mine) == exact(sdk["written"]["mine"][index])
        assert exact(mine) == exact(sdk["written"]["theirs"][index])


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
