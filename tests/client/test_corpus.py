"""Real runs that people published, through the dev server and back, equal to the last bit."""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path
from typing import Any

import pytest

from wb_ops import Api
from wb_ops.devserver import DevServer
from wb_ops.tables.values import parse_json


def same(one: Any, other: Any) -> bool:
    """Equal in value and kind; NaN equals NaN, -0.0 differs from 0.0, 1 equals 1.0."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, float) and isinstance(other, float):
        both_nan = math.isnan(one) and math.isnan(other)
        return both_nan or (one == other and math.copysign(1, one) == math.copysign(1, other))
    return bool(one == other)


def unwrapped(config: dict[str, Any]) -> dict[str, Any]:
    return {
        key: value["value"] if isinstance(value, dict) and "value" in value else value
        for key, value in config.items()
        if key not in ("_wandb", "wandb_version")
    }


def test_every_config_and_summary(server: DevServer, api: Api, corpus_runs: list[dict[str, Any]]):
    server.seed_runs(
        {
            "entity": "ann", "project": "trials", "run_id": f"r{index}",
            "raw_config": json.dumps(run.get("config") or {}),
            "summary": json.dumps(run.get("summary") or {}),
        }
        for index, run in enumerate(corpus_runs)
    )  # fmt: skip
    found = {run.id: run for run in api.runs("ann/trials", order="+created_at", per_page=500)}
    assert len(found) == len(corpus_runs)
    for index, run in enumerate(corpus_runs):
        read = found[f"r{index}"]
        assert same(read.config, unwrapped(run.get("config") or {})), run["run"]
        assert same(dict(read.summary), run.get("summary") or {}), run["run"]


def flat(row: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Plain objects become dotted keys, as in W&B's exports; null is "not logged"."""
    values: dict[str, Any] = {}
    for key, value in row.items():
        if isinstance(value, dict) and value and "_type" not in value:
            values |= flat(value, f"{prefix}{key}.")
        elif value is not None:
            values[prefix + key] = value
    return values


def with_number(line: str) -> str:
    """Drop a `_step` that is no integer: a text of a CSV, or one of W&B's own odd fixtures."""
    row = parse_json(line)
    if isinstance(row, dict) and type(row.get("_step", 0)) is not int:
        return json.dumps({key: value for key, value in row.items() if key != "_step"})
    return line


def expected(lines: list[str]) -> list[dict[str, Any]]:
    """One row a step, the later value of a key wins; a row without step counts as its number."""
    steps: dict[int, dict[str, Any]] = {}
    for number, line in enumerate(lines):
        row = flat(parse_json(line))
        step = int(row.pop("_step", number))
        steps.setdefault(step, {"_step": step}).update(row)
    return [steps[step] for step in sorted(steps)]


@pytest.mark.parametrize("parquet", ["auto", "off"], ids=["files", "windows"])
def test_every_history(server: DevServer, api: Api, corpus_histories: list[Path], parquet: str):
    """Rows without a number as `_step` (CSV exports have texts) are numbered in order."""
    rows = 0
    for path in corpus_histories:
        lines = [
            with_number(line) for line in gzip.decompress(path.read_bytes()).decode().splitlines()
        ]
        run_id = path.name.split(".")[0]
        server.seed_run("ann", "trials", run_id, history=lines, parquet=parquet)
        read = list(api.run(f"ann/trials/{run_id}").scan_history())
        want = expected(lines)
        assert len(read) == len(want), path.name
        for got, row in zip(read, want, strict=True):
            assert same(got, row), (path.name, row["_step"])
        rows += len(lines)
    assert rows > 10_000
