"""Seeded schedules of everything that goes wrong: the truth comes back, or one of our errors.

CI runs a sample of each; WB_OPS_SCHEDULES (`make soak`) says how many.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest
from logged_rows import same
from simulated_edits import Editor, seed_documents
from simulated_histories import LOOSE, NAMES, SPECIAL, seed_histories
from simulated_world import STATES, Row, SimulatedRun, World, truth

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
SEEDS = range(FIRST, FIRST + SCHEDULES)
MAX_WAIT_S = 100.0
MAX_REQUESTS = 3000

# Error -> its advice, and the faults of which one must have struck.
LIMITS = {"429s", "429date", "429reset", "503after", "limited", "remaining0"}
STATUSES = {"500", "502", "503", "504", "520", "503after", "internal", "deadline"}
CUT = {"cut", "slow", "html", "array", "empty", "closed", "reset"}
EXPECTED: dict[str, tuple[set[AdviceKind], set[str]]] = {
    "RateLimited": ({AdviceKind.AFTER, AdviceKind.BACKOFF}, LIMITS),
    "ServerUnavailable": ({AdviceKind.BACKOFF}, STATUSES | {"expired", "gone", "poison", "delete"}),
    "ConnectionFailed": ({AdviceKind.BACKOFF}, {"reset", "closed", "cut", "slow"}),
    "RequestTimeout": ({AdviceKind.BACKOFF}, {"408", "slow"}),
    "MalformedResponse": (
        {AdviceKind.BACKOFF},
        CUT | {"truncated", "length0", "same_cursor", "empty_page", "delete"},
    ),
    "OutcomeUnknown": (
        {AdviceKind.VERIFY},
        # What was written is read back from a listing.
        STATUSES | LIMITS | CUT | {"408", "same_cursor", "empty_page"},
    ),
    "AuthenticationFailed": ({AdviceKind.NEVER}, {"401"}),
    "PermissionDenied": ({AdviceKind.NEVER}, {"403"}),
    "NotFound": ({AdviceKind.NEVER}, {"delete"}),
    # A write to a run that is gone is refused.
    "InvalidRequest": ({AdviceKind.NEVER}, {"409", "running", "delete"}),
}

# Warnings of a listing in which a run may be missing.
TELLING = ("faster than they are listed", "runs, the server counts")


def client(base_url: str, world: World) -> tuple[RunSource, HistoryReader]:
    timeout_s = 0.5 if "slow" in world.kinds else 30.0
    settings = Settings(
        f"{world.seed:040}", base_url, timeout_s=timeout_s, max_attempts=4, max_wait_s=MAX_WAIT_S,
        max_in_flight=4,
    )  # fmt: skip
    transport = Transport(settings, world.clock.sleep, world.clock)
    return RunSource(transport, "ann", "trials"), HistoryReader(4)


def check_error(error: CommError, world: World) -> None:
    kinds, causes = EXPECTED[type(error).__name__]
    assert error.advice.kind in kinds, error
    struck = {kind for kind, count in world.injected.items() if count}
    struck |= {"poison" for run in world.runs if run.is_poison}
    struck |= {"running" for run in world.runs if run.state == "running"}
    assert struck & causes, (error, struck)
    if error.advice.kind is AdviceKind.AFTER:
        assert 0 <= (error.retry_after_s or 0) <= 401


def check_world(world: World) -> None:
    assert not world.violations, world.violations
    assert world.requests < MAX_REQUESTS


@contextmanager
def noted(seed: int) -> Iterator[list[object]]:
    """Where this schedule fails, name its seed, what is put into the list, and how to repeat it."""
    facts: list[object] = []
    try:
        yield facts
    except Exception as error:
        test = os.environ["PYTEST_CURRENT_TEST"].split()[0]
        again = f"WB_OPS_SEED={seed} WB_OPS_SCHEDULES=1 .venv/bin/python -m pytest {test}"
        error.add_note(f"seed {seed}: {', '.join(map(str, facts))}\nonce more: {again}")
        raise


def check_outcomes(outcomes: Counter[str]) -> None:
    """Every schedule has ended, many of them at the truth, few in a warning of lost runs."""
    print(dict(outcomes), "told:", outcomes["told"])
    assert sum(outcomes.values()) == SCHEDULES
    assert outcomes["truth"] >= SCHEDULES // 4
    assert outcomes["told"] <= SCHEDULES // 20


def people_project(world: World) -> None:
    rng = world.rng
    world.cursor_kind = rng.choice(["keyset", "positions"])
    world.has_stable_cursors = rng.random() < 0.7
    world.longest_page = rng.choice([1000, 1000, 1000, 1, 2, 5])
    for index in range(rng.randint(1, 60)):
        run = SimulatedRun(f"r{index}", [f"r{index} v0"], state=rng.choice(STATES))
        run.is_poison = rng.random() < world.fault_rate / 10
        world.runs.append(run)


def check_node(run: Run, simulated: SimulatedRun) -> None:
    """Name, config and summary are those of one moment, and every number is exact."""
    assert run.name in simulated.versions
    assert run.state == simulated.state
    assert run.config == {"v": run.name}
    expected = {"v": run.name, "x": float("nan"), "low": float("-inf"), "big": 2**53 + 1}
    assert same(dict(run.summary), expected)


def check_listing(
    runs: Runs, world: World, before: list[SimulatedRun], log: pytest.LogCaptureFixture
) -> bool:
    """Whether the listing is whole; where runs are lost, the client says that they move."""
    lost = []
    listed = {run.id: run for run in runs}
    assert len(listed) == len(list(runs))
    for run in before:
        if run.name in listed:
            check_node(listed[run.name], run)
            assert not run.is_poison
        elif run.name not in runs.broken and not run.is_deleted:
            lost.append(run.name)
    known = {run.name for run in world.runs}
    assert set(listed) <= known
    for error in runs.broken.values():
        check_error(error, world)
    assert not lost or any(words in log.text for words in TELLING), f"{lost} are lost"
    return not lost


def list_runs(base_url: str, world: World, log: pytest.LogCaptureFixture, order: str) -> str:
    """How a listing ends, which is checked."""
    before = list(world.runs)
    source, reader = client(base_url, world)
    runs = Runs(source, reader, order=order, per_page=world.rng.choice([1, 7, 50]))
    try:
        return "truth" if check_listing(runs, world, before, log) else "told"
    except CommError as error:
        check_error(error, world)
        return type(error).__name__


@pytest.mark.timeout(3600)
def test_a_listing_is_whole_or_an_error(simulation: Any, caplog: pytest.LogCaptureFixture):
    outcomes: Counter[str] = Counter()
    for seed in SEEDS:
        caplog.clear()
        with noted(seed) as facts:
            base_url, world = simulation.world(seed, people_project)
            order = world.rng.choice(["+created_at", "-created_at", "-heartbeat_at"])
            facts += [order, world.cursor_kind, world.injected]
            outcomes[list_runs(base_url, world, caplog, order)] += 1
            check_world(world)
    check_outcomes(outcomes)


def choose_selection(world: World) -> Selection:
    rng = world.rng
    if rng.random() < 0.4:
        return EVERYTHING
    keys = None
    if rng.random() < 0.7:
        keys = tuple(rng.sample([*NAMES, "never logged"], rng.randint(1, 3)))
    steps = [row["_step"] for run in world.runs for row in run.rows] or [0]
    low, high = sorted(rng.choice(steps) + rng.choice([0, 1]) for _ in range(2))
    return Selection(
        keys, rng.choice([None, low]), rng.choice([None, high]), rng.choice(["any", "all"])
    )


def expected_rows(run: SimulatedRun, selection: Selection) -> dict[int, Row]:
    """What was logged, in these steps and of these keys."""
    rows = {}
    for step, row in truth(run).items():
        is_late = selection.max_step is not None and step >= selection.max_step
        if is_late or step < (selection.min_step or 0):
            continue
        if selection.keys is not None:
            holds = [key in row for key in selection.keys]
            if not (any(holds) if selection.require == "any" else all(holds)):
                continue
            row = {key: row[key] for key in ("_step", *selection.keys) if key in row}
        rows[step] = row
    return rows


def check_history(found: list[Row], run: SimulatedRun, selection: Selection) -> None:
    expected = expected_rows(run, selection)
    needed = set(expected) - {row["_step"] for row in run.appended}
    steps = [row["_step"] for row in found]
    assert steps == sorted(set(steps))
    assert needed <= set(steps) <= set(expected), f"{run.name}: other rows"
    for row in found:
        for key in row.keys() | expected[row["_step"]].keys():
            one, other = row.get(key), expected[row["_step"]].get(key)
            is_same = same(one, other, is_loose=run.kinds.get(key) in LOOSE)
            if key in run.as_text and selection.max_step is not None:
                # The row that says that a text is a number may not be among these.
                is_same = is_same or same(SPECIAL.get(str(one)), other)
            assert is_same, f"{run.name}, step {row['_step']}, {key}: {one!r}, not {other!r}"


Histories = Iterator[tuple[Run, list[Row]]]
OnError = Callable[[Run, CommError], None]


def read_together(
    reader: HistoryReader, runs: list[Run], selection: Selection, world: World, on_error: OnError
) -> Histories:
    most = world.rng.choice([1, 50, 10**6])
    for run, stream in scan_histories(reader, runs, selection, most, on_error):
        yield run, to_rows(stream.read_all())


def read_alone(
    reader: HistoryReader, runs: list[Run], selection: Selection, world: World, on_error: OnError
) -> Histories:
    """One by one, as rows or as a table."""
    chosen = (selection.keys, selection.min_step, selection.max_step, selection.require)
    keys, low, high, require = chosen
    for run in runs:
        try:
            if world.rng.random() < 0.5:
                page_size = world.rng.choice([1, 7, 1000])
                rows = list(run.scan_history(keys, page_size, low, high, require=require))
            else:
                rows = to_rows(run.history_table(keys, low, high, require))
        except CommError as error:
            on_error(run, error)
            continue
        yield run, rows


def read_histories(base_url: str, world: World, selection: Selection) -> str:
    """How the reading of all histories ends, which is checked."""
    by_name = {run.name: run for run in world.runs}
    errors: dict[str, CommError] = {}
    seen: list[str] = []

    def note(run: Run, error: CommError) -> None:
        errors[run.id] = error

    source, reader = client(base_url, world)
    runs = [Run(source, reader, run.node()) for run in world.runs]
    read = read_together if world.rng.random() < 0.6 else read_alone
    try:
        with closing(reader):
            for run, rows in read(reader, runs, selection, world, note):
                assert not by_name[run.id].is_poison
                check_history(rows, by_name[run.id], selection)
                seen.append(run.id)
    except CommError as error:
        check_error(error, world)
        return type(error).__name__
    assert sorted([*seen, *errors]) == sorted(by_name)
    for error in errors.values():
        check_error(error, world)
    return "truth" if not errors else "some runs"


@pytest.mark.timeout(3600)
def test_histories_are_whole_or_an_error(simulation: Any):
    outcomes: Counter[str] = Counter()
    for seed in SEEDS:
        with noted(seed) as facts:
            base_url, world = simulation.world(1_000_000 + seed, seed_histories)
            selection = choose_selection(world)
            facts += [selection, world.injected]
            outcomes[read_histories(base_url, world, selection)] += 1
            check_world(world)
    check_outcomes(outcomes)


def write_once(editor: Editor, source: RunSource, reader: HistoryReader, world: World) -> str:
    """How one write ends, which is checked."""
    try:
        editor.edit(Run(source, reader, source.fetch_node("r0")))
    except CommError as error:
        check_error(error, world)
        editor.check_after(error)
        return type(error).__name__
    editor.check()
    return "truth"


@pytest.mark.timeout(3600)
def test_a_write_is_carried_out_once_or_an_error(simulation: Any):
    outcomes: Counter[str] = Counter()
    for seed in SEEDS:
        with noted(seed) as facts:
            base_url, world = simulation.world(2_000_000 + seed, seed_documents)
            facts.append(world.injected)
            source, reader = client(base_url, world)
            editor = Editor(world, world.runs[0])
            for _ in range(3):
                outcomes[write_once(editor, source, reader, world)] += 1
            check_world(world)
    print(dict(outcomes))
    assert sum(outcomes.values()) == 3 * SCHEDULES
    assert outcomes["truth"] >= SCHEDULES
