"""Answers in which any value is null, or any JSON is other JSON: a value, or an error of ours."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any

import pytest

from wb_ops import Api, CommError
from wb_ops.client.operations import Operation
from wb_ops.client.run import Run
from wb_ops.devserver import DevServer, Fault, Matcher, Responder
from wb_ops.settings import Settings

# Fields whose type is JSON of any shape; the others have one type each in the server's schema.
JSON_FIELDS = {
    "config", "summaryMetrics", "systemMetrics", "historyKeys", "liveData", "history",
    "sampledHistory", "events",
}  # fmt: skip
# Texts that no parser may choke on: of a time, and of the YAML of a sweep.
TIMES = ("0001-01-01T00:00:00+05:00", "9" * 20, "2026-13-45", "")
YAML = ("a: 2026-13-45", "metric: loss", "a: !!int ''", "[" * 5000)
TEXTS = {"createdAt": TIMES, "heartbeatAt": TIMES, "updatedAt": TIMES, "config": YAML}
DOCUMENTS = {"config", "rawconfig", "summary", "summary_metrics"}
ODD = ("[", "[1]", '{"_step": "x"}', 7, [1], {"a": 1})


def read_fields(run: Run) -> None:
    for name in (
        "id", "name", "state", "config", "rawconfig", "summary", "summary_metrics", "tags", "notes",
        "user", "username", "created_at", "heartbeat_at", "history_keys", "lastHistoryStep",
        "history_line_count", "commit", "url", "read_only",
    ):  # fmt: skip
        try:
            value = getattr(run, name)
        except CommError:
            continue
        assert name not in DOCUMENTS or isinstance(value, Mapping), name


def read_run(api: Api) -> None:
    read_fields(api.run("ann/trials/r1"))


def read_runs(api: Api) -> None:
    for run in api.runs("ann/trials"):
        read_fields(run)
    api.runs("ann/trials").to_arrow()


def read_sweep(api: Api) -> None:
    sweep = api.sweep("ann/trials/sw")
    for name in ("name", "config", "order", "created_at", "updated_at", "run_count", "url"):
        with suppress(CommError):
            getattr(sweep, name)


CALLS: dict[str, Callable[[Api], object]] = {
    "Run": read_run,
    "Runs": read_runs,
    "RunParquetHistory": lambda api: list(api.run("ann/trials/r1").scan_history()),
    "HistoryPage": lambda api: list(api.run("ann/trials/r1").scan_history()),
    "RunSampledHistory": lambda api: api.run("ann/trials/r1").history(keys=["loss"], pandas=False),
    "RunFullHistory": lambda api: api.run("ann/trials/r1").history(pandas=False),
    "RunEvents": lambda api: api.run("ann/trials/r1").history(stream="system", pandas=False),
    "RunSystemMetrics": lambda api: api.run("ann/trials/r1").system_metrics,
    "RunFiles": lambda api: [file.read() for file in api.run("ann/trials/r1").files()],
    "GetSweep": read_sweep,
    "GetSweeps": lambda api: [sweep.name for sweep in api.project("trials", "ann").sweeps()],
    "GetProjects": lambda api: [(one.name, one.url) for one in api.projects("ann")],
    "Viewer": lambda api: (api.viewer.username, api.viewer.teams, api.default_entity),
}


@pytest.fixture(scope="module")
def server() -> Iterator[DevServer]:
    with DevServer() as server:
        server.seed_sweep(entity="ann", project="trials", sweep_id="sw", config={"method": "grid"})
        server.seed_run(
            "ann", "trials", "r1", config={"lr": 1}, summary={"loss": 1}, tags=["a"], sweep="sw",
            history=[{"_step": step, "loss": 0.5} for step in range(3)], parquet=1,
            events=[{"system.cpu": 1.0, "_timestamp": 1.0}], files={"a.json": "{}"},
            system_metrics={"cpu": 1},
        )  # fmt: skip
        yield server


@pytest.fixture(scope="module")
def api(server: DevServer) -> Iterator[Api]:
    settings = Settings(api_key=server.api_key, base_url=server.url, max_attempts=1)
    with Api(settings=settings) as api:
        yield api


def mutations(value: Any, *, is_json: bool = False) -> Iterator[Any]:
    """The value with each part of it once null, each JSON other JSON, and some texts odd."""
    yield None
    if is_json:
        yield from ODD
    if isinstance(value, dict):
        for key, member in value.items():
            for other in (*mutations(member, is_json=key in JSON_FIELDS), *TEXTS.get(key, ())):
                yield value | {key: other}
    if isinstance(value, list):
        for at, member in enumerate(value):
            for other in mutations(member, is_json=is_json):
                yield [*value[:at], other, *value[at + 1 :]]


@pytest.mark.parametrize("operation", CALLS)
def test_no_other_error_comes_of_it(server: DevServer, api: Api, operation: str):
    server.faults.clear()
    server.requests.clear()
    api.flush()
    CALLS[operation](api)
    asked = next(one for one in server.requests if one.operation == operation)
    truth = api.transport.execute(Operation(operation, asked.document, asked.variables))
    answers = list(mutations(truth))
    assert len(answers) > 5
    for answer in answers:
        api.flush()
        server.faults.clear()
        body = json.dumps({"data": answer})
        server.faults.add(Fault(Matcher(operation=operation), Responder(status=200, body=body)))
        with suppress(CommError):
            CALLS[operation](api)
