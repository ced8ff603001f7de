"""Real runs that people published, through the dev server and back, equal to the last bit."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from logged_rows import dotted, same, with_number

from wb_ops import Api
from wb_ops.devserver import DevServer
from wb_ops.tables.values import parse_json

# Columns of an exported file that are of floats whatever was logged.
FLOATS_IN_FILES = {"_runtime", "_timestamp"}


def number_types(value: Any) -> set[type]:
    """Which of int and float there are in a value."""
    members = value.values() if isinstance(value, dict) else value
    if isinstance(value, dict | list):
        return set().union(*map(number_types, members))
    return {type(value)} & {int, float}


def mixed(rows: list[dict[str, Any]]) -> set[str]:
    """Keys that hold integers and floats: in a column of one type they are floats."""
    types: dict[str, set[type]] = {}
    for row in rows:
        for key, value in row.items():
            types.setdefault(key, set()).update(number_types(value))
    return {key for key, both in types.items() if len(both) == 2}


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


def expected(lines: list[str]) -> list[dict[str, Any]]:
    """One row a step, the later value of a key wins; a row without step counts as its number."""
    steps: dict[int, dict[str, Any]] = {}
    for number, line in enumerate(lines):
        row = dotted(parse_json(line))
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
        # What was logged over counts too: its file holds it.
        loose = mixed([dotted(parse_json(line)) for line in lines])
        if parquet == "auto":
            loose |= FLOATS_IN_FILES
        assert len(read) == len(want), path.name
        for got, row in zip(read, want, strict=True):
            assert got.keys() == row.keys(), (path.name, row["_step"])
            differing = [key for key in row if not same(got[key], row[key], is_loose=key in loose)]
            assert not differing, (path.name, row["_step"])
        rows += len(lines)
    assert rows > 10_000
