"""Edits of a run's documents, and what the server may hold after each."""

from __future__ import annotations

import json
import math
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from simulated_world import SimulatedRun, World

from wb_ops.client.runs import Run
from wb_ops.errors import CommError

WANDB = '{"value":{"t":{"1":[1,2.0]},"python_version":"3.11"}}'
VALUES: tuple[Any, ...] = (
    1, 1.0, -0.0, math.nan, math.inf, 2**53 + 1, 10**30, "text", "NaN", "grüße 🚀\x00", "\ud800",
    None, True, {"deep": [math.nan, {"x": 1.0}]}, [], {},
)  # fmt: skip
OURS = ("a", "b", "a.b", "größe")


def seed_documents(world: World) -> None:
    """One run, whose documents W&B and others have written to, among others."""
    rng = world.rng
    run = SimulatedRun("r0", ["r0 v0"])
    run.config = rng.choice(
        [f'{{"_wandb":{WANDB}}}', f'{{ "_wandb" : {WANDB} , "lr":{{"value":1}}}}']
    )
    run.summary = rng.choice(['{"loss":1.50}', '{ "loss":1.50,"_wandb":{"runtime":3}}'])
    run.state = "running" if rng.random() < 0.05 else "finished"
    world.runs = [run, *(SimulatedRun(f"r{number}", ["v0"]) for number in (1, 2, 3))]


@dataclass
class State:
    """What we have written, apart from what others have."""

    summary: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    tags: set[str] = field(default_factory=set)
    notes: str | None = None


class Editor:
    """Makes edits, and knows of each what the server holds where it was carried out."""

    def __init__(self, world: World, run: SimulatedRun) -> None:
        self._world = world
        self._run = run
        self._now = State()
        self._next = State()
        self._writes = 0

    def edit(self, run: Run) -> None:
        """Change some fields and send them."""
        rng = self._world.rng
        self._next, self._writes = deepcopy(self._now), self._world.writes
        edits = (self._set, self._remove, self._configure, self._tag, self._note)
        chosen = rng.sample(edits, rng.randint(1, 3))
        for change in chosen:
            change(run)
        only_summary = set(chosen) <= {self._set, self._remove}
        if only_summary and rng.random() < 0.5:
            run.summary.update()
        else:
            run.update()

    def check(self) -> None:
        """The edit was carried out, once, and nothing else."""
        assert self._world.writes - self._writes <= 1
        self._now = self._next
        self._check(self._now)

    def check_after(self, error: CommError) -> None:
        """The edit was carried out as a whole or not at all, and at most once."""
        writes = self._world.writes - self._writes
        assert writes <= 1
        self._now = self._next if writes else self._now
        self._check(self._now)

    def _check(self, state: State) -> None:
        run, others = self._run, self._world.others.get("r0", [])
        summary, config = (
            json.loads(run.summary, strict=False),
            json.loads(run.config, strict=False),
        )
        held = {key: summary[key] for key in OURS if key in summary}
        assert repr(sorted(held.items())) == repr(sorted(state.summary.items()))
        configured = {key: config[key]["value"] for key in OURS if key in config}
        assert repr(sorted(configured.items())) == repr(sorted(state.config.items()))
        assert {tag for tag in run.tags if not tag.startswith("theirs")} == state.tags
        assert len(run.tags) == len(set(run.tags))
        assert run.notes == state.notes
        assert WANDB in run.config
        assert "1.50" in run.summary
        for number, raw in enumerate(others, 1):
            assert raw in run.summary, f"theirs{number} is lost"
            assert raw in run.config, f"theirs{number} is lost"
            assert f"theirs{number}" in run.tags
        assert len(summary) == len(held) + len(others) + 1 + ("_wandb" in summary)

    def _set(self, run: Run) -> None:
        key, value = self._world.rng.choice(OURS), self._world.rng.choice(VALUES)
        run.summary[key] = self._next.summary[key] = value

    def _remove(self, run: Run) -> None:
        key = self._world.rng.choice(OURS)
        if key in run.summary:
            del run.summary[key]
            self._next.summary.pop(key, None)

    def _configure(self, run: Run) -> None:
        key, value = self._world.rng.choice(OURS), self._world.rng.choice(VALUES)
        run.config[key] = self._next.config[key] = value

    def _tag(self, run: Run) -> None:
        tag = self._world.rng.choice(["good", "bad"])
        if tag in run.tags:
            run.tags.remove(tag)
            self._next.tags.discard(tag)
        else:
            run.tags.append(tag)
            self._next.tags.add(tag)

    def _note(self, run: Run) -> None:
        run.notes = self._next.notes = self._world.rng.choice(["n1", "n2", "größe"])
