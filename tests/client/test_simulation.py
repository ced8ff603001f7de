"""Seeded schedules of everything that goes wrong: the truth comes back, or one of our errors.

CI runs a sample of each; WB_OPS_SCHEDULES (`make soak`) says how many.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pytest

from wb_ops.client.history import HistoryReader
from wb_ops.client.runs import Run, Runs
from wb_ops.client.scan import scan_histories
from wb_ops.client.selection import EVERYTHING, Selection
from wb_ops.client.source import RunSource
from wb_ops.client.transport import Transport
from wb_ops.errors import AdviceKind, CommError
from wb_ops.settings import Settings
from wb_ops.tables.history import to_rows

SCHEDULES = int(os.environ.get("WB_OPS_SCHEDULES", "50"))
FIRST = int(os.environ.get("WB_OPS_SEED", "0"))
MAX_WAIT_S = 100.0
MAX_REQUESTS = 3000

# Error -> its advice, and the faults of which one must have struck.
LIMITS = {"429s", "429date", "429reset", "503after", "limited", "remaining0"}
STATUSES = {"500", "502", "503", "504", "520", "503after", "internal", "deadline"}
EXPECTED: dict[str, tuple[set[AdviceKind], set[str]]] = {
    "RateLimited": ({AdviceKind.AFTER, AdviceKind.BACKOFF}, LIMITS),
    "ServerUnavailable": ({AdviceKind.BACKOFF}, STATUSES | {"expired", "gone", "poison", "delete"}),
    "ConnectionFailed": ({AdviceKind.BACKOFF}, {"reset", "closed", "cut", "slow"}),
    "RequestTimeout": ({AdviceKind.BACKOFF}, {"408", "slow"}),
    "MalformedResponse": (
        {AdviceKind.BACKOFF},
        {"cut", "slow", "html", "array", "empty", "truncated", "length0", "same_cursor",
         "empty_page", "closed", "reset", "delete"},
    ),
    "AuthenticationFailed": ({AdviceKind.NEVER}, {"401"}),
    "NotFound": ({AdviceKind.NEVER}, {"delete"}),
}  # fmt: skip


def client(base_url: str, world: Any) -> tuple[RunSource, HistoryReader]:
    timeout_s = 0.5 if "slow" in world.kinds else 30.0
    settings = Settings(
        f"{world.seed:040}", base_url, timeout_s=timeout_s, max_attempts=4, max_wait_s=MAX_WAIT_S,
        max_in_flight=4,
    )  # fmt: skip
    transport = Transport(settings, world.clock.sleep, world.clock)
    return RunSource(transport, "ann", "trials"), HistoryReader(4)


def check_error(error: CommError, world: Any) -> None:
    kinds, causes = EXPECTED[type(error).__name__]
    assert error.advice.kind in kinds, error
    struck = {kind for kind, count in world.injected.items() if count}
    struck |= {"poison" for run in world.runs if run.is_poison}
    assert struck & causes, (error, struck)
    if error.advice.kind is AdviceKind.AFTER:
        assert 0 <= (error.retry_after_s or 0) <= 401


def check_world(world: Any) -> None:
    assert not world.violations, world.violations
    assert world.requests < MAX_REQUESTS


def schedules(first: int) -> range:
    return range(FIRST + first, FIRST + first + SCHEDULES)


def check_outcomes(outcomes: Counter[str]) -> None:
    """Every schedule has ended, and many of them at the truth."""
    print(dict(outcomes))
    assert sum(outcomes.values()) == SCHEDULES
    assert outcomes["truth"] >= SCHEDULES // 4


def people_project(world: Any, make_run: Callable[..., Any]) -> None:
    for index in range(world.rng.randint(1, 60)):
        run = make_run(f"r{index}", [f"r{index} v0"], [], [], None)
        run.is_poison = world.rng.random() < world.fault_rate / 10
        world.runs.append(run)


def check_listing(runs: Runs, world: Any, before: list[Any]) -> None:
    listed = {run.id: run.name for run in runs}
    assert len(listed) == len(list(runs))
    for run in before:
        if run.name in listed:
            assert listed[run.name] in run.versions
            assert not run.is_poison
        else:
            assert run.name in runs.broken or run.is_deleted, f"{run.name} is lost"
    known = {run.name for run in world.runs}
    assert set(listed) <= known
    for error in runs.broken.values():
        check_error(error, world)


@pytest.mark.timeout(3600)
def test_a_listing_is_whole_or_an_error(simulation: Any, make_run: Any):
    outcomes: Counter[str] = Counter()
    for seed in schedules(0):
        base_url, world = simulation.world(seed, lambda world: people_project(world, make_run))
        before = list(world.runs)
        source, reader = client(base_url, world)
        runs = Runs(source, reader, order="+created_at", per_page=world.rng.choice([1, 7, 50]))
        try:
            check_listing(runs, world, before)
            outcomes["truth"] += 1
        except CommError as error:
            check_error(error, world)
            outcomes[type(error).__name__] += 1
        check_world(world)
    check_outcomes(outcomes)


def seed_histories(world: Any, make_run: Callable[..., Any], parquet: Callable[..., bytes]) -> None:
    rng = world.rng
    for index in range(rng.randint(1, 6)):
        start, gap = rng.choice([0, 5, 10**9]), rng.choice([1, 1, 1000])
        rows = [
            {"_step": start + gap * step, "x": rng.choice([step, step + 0.5])}
            for step in range(rng.randint(0, 60))
        ]
        exported = rng.randint(0, len(rows))
        cuts = sorted(rng.sample(range(exported + 1), min(2, exported + 1)))
        bounds = [0, *cuts, exported]
        parts = [rows[a:b] for a, b in pairwise(bounds) if b > a]
        files = [
            parquet(part, as_ints=all(type(row["x"]) is int for row in part)) for part in parts
        ]
        live = rows[exported]["_step"] if exported < len(rows) else None
        name = f"r{index}"
        run = make_run(name, [f"{name} v0"], rows, files, live)
        run.is_poison = rng.random() < world.fault_rate / 4
        world.runs.append(run)


def check_history(table: pa.Table, run: Any) -> None:
    truth = {row["_step"]: row["x"] for row in run.rows}
    needed = set(truth) - {row["_step"] for row in run.appended}
    found = {row["_step"]: row.get("x") for row in to_rows(table)}
    assert len(found) == table.num_rows
    assert needed <= set(found), f"{run.name}: rows are lost"
    assert all(truth[step] == value for step, value in found.items()), f"{run.name}: a wrong row"


@pytest.mark.timeout(3600)
def test_histories_are_whole_or_an_error(simulation: Any, make_run: Any, make_parquet: Any):
    outcomes: Counter[str] = Counter()
    for seed in schedules(1_000_000):
        base_url, world = simulation.world(
            seed, lambda world: seed_histories(world, make_run, make_parquet)
        )
        source, reader = client(base_url, world)
        by_name = {run.name: run for run in world.runs}
        nodes = [
            {"name": run.name, "id": run.name, "historyLineCount": len(run.rows)}
            for run in world.runs
        ]
        selection = world.rng.choice([EVERYTHING, Selection(("x",))])
        errors: dict[str, CommError] = {}
        seen: list[str] = []
        try:
            scan = scan_histories(
                reader,
                [Run(source, reader, node) for node in nodes],
                selection,
                world.rng.choice([1, 50, 10**6]),
                lambda run, error, errors=errors: errors.update({run.id: error}),
            )
            for run, stream in scan:
                assert not by_name[run.id].is_poison
                check_history(stream.read_all(), by_name[run.id])
                seen.append(run.id)
            assert sorted([*seen, *errors]) == sorted(by_name)
            for error in errors.values():
                check_error(error, world)
            outcomes["truth" if not errors else "some runs"] += 1
        except CommError as error:
            check_error(error, world)
            outcomes[type(error).__name__] += 1
        finally:
            reader.close()
        check_world(world)
    check_outcomes(outcomes)
