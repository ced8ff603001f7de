"""Real and messy runs into each destination, where SQL that is not ours compares every value.

What was logged is read by Python's own `json` (`logged_values.py`), put into the destination by the
destination's own driver (`opened_warehouses.py`), and compared there with the base tables
(`compared_in_sql.py`): DuckDB and PostgreSQL in themselves, Parquet and Delta in a DuckDB that has
read the folder's `views.sql`. Counts come first, then doubles by their bits, times by microseconds,
and JSON leaf by leaf: integers by their digits, doubles by their bits. In `_extra` an integer of
less than 16 digits equals its double, because a list of both is one of doubles in W&B's files.

Of `runs_flat`, which is capped, those leaves are compared that have a column. Times of runs, hashes
and receipts have tests of their own. CI takes every fourth published run and compares the view
`history_tall` only in `test_corpus_damage.py`; `WB_OPS_CORPUS=1` compares all, and takes all runs.
"""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from compared_in_sql import differences, put_logged, unequal
from logged_rows import with_number
from logged_values import count_of_values
from messy_projects import messy_runs
from opened_warehouses import opened
from trouble_runs import REQUEST, Seed, export, hand_made, seed, seeded

from wb_ops.devserver import DevServer

STRIDE = int(os.environ.get("WB_OPS_CORPUS", "4"))


def messy() -> Iterator[Seed]:
    """The 200 runs over which the client's tests go."""
    for run in messy_runs():
        del run["entity"], run["project"], run["files"]
        yield {**run, **{name: list(map(json.dumps, run[name])) for name in ("history", "events")}}


def real(corpus: Path, runs: list[dict[str, Any]]) -> Iterator[Seed]:
    """Published runs: those with rows by the number of their file, then those without any."""
    numbers: dict[tuple[str, str], list[str]] = {}
    for file in json.loads((corpus / "MANIFEST.json").read_text())["files"]:
        listed = numbers.setdefault((file["source"], file["run"]), [])
        listed += {Path(file["file"]).name.split(".")[0]} - {*listed}
    numbered: dict[str, dict[str, Any]] = {}
    others = []
    for run in runs:
        free = numbers.get((run["source"], run["run"]))
        if free:
            numbered[free.pop(0)] = run
        else:
            others.append(run)
    numbered |= {number: {} for left in numbers.values() for number in left}
    for number in sorted(numbered)[::STRIDE]:
        yield published(f"n{number}", numbered[number], corpus, number)
    for at, run in enumerate(others[::STRIDE]):
        yield published(f"r{at}", run, corpus)


def published(run_id: str, run: dict[str, Any], corpus: Path, number: str = "none") -> Seed:
    history, events = (
        gzip.decompress(path.read_bytes()).decode().splitlines() if path.exists() else []
        for path in (corpus / name / f"{number}.jsonl.gz" for name in ("history", "events"))
    )
    documents = {
        "raw_config": json.dumps(run.get("config") or {}),
        "summary": json.dumps(run.get("summary") or {}),
    }
    return seed(run_id, list(map(with_number, history)), events, **documents)


@pytest.fixture(scope="module")
def everything(
    corpus: Path, corpus_runs: list[dict[str, Any]]
) -> Iterator[tuple[DevServer, dict[str, pa.Table]]]:
    with DevServer(parquet_rows_per_file=2_000) as server:
        seeds = [*real(corpus, corpus_runs), *hand_made(), *messy()]
        yield server, seeded(server, seeds)


def test_every_value_is_in_the_warehouse(
    everything: tuple[DevServer, dict[str, pa.Table]], url: str
):
    server, logged = everything
    export(server, url)
    with opened(url, REQUEST.dataset_name) as place:
        put_logged(place, logged)
        found = differences(place, with_view=STRIDE == 1)
    assert unequal(found) == {}
    assert found["numbers"].stored > 100_000
    assert found["system metrics"].stored > 100_000
    print(f"{url.partition(':')[0]}: {count_of_values(logged):,} values compared, "
          f"{ {name: one.stored for name, one in found.items()} }")  # fmt: skip
