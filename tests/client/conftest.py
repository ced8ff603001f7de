"""A project with sweeps, and a W&B whose answers go wrong by a seed, for whoever needs them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from wb_ops.devserver import DevServer

sys.path.insert(0, str(Path(__file__).resolve().parent))

from simulated_server import Simulation


@pytest.fixture(scope="session")
def simulation() -> Iterator[Simulation]:
    simulation = Simulation()
    yield simulation
    simulation.close()


@pytest.fixture
def project(server: DevServer) -> DevServer:
    """Three sweeps, five runs of the first one, and another project."""
    config = {"method": "bayes", "name": "given", "metric": {"name": "acc", "goal": "maximize"}}
    for number in range(3):
        server.seed_sweep(
            entity="ann", project="trials", sweep_id=f"sw{number}", config=config,
            created_at=f"2026-01-0{number + 1}T00:00:00",
        )  # fmt: skip
    summaries: list[Any] = [{"acc": 0.5}, {"acc": 0.9}, '{"acc": NaN}', {}, {"acc": "high"}]
    for day, summary in enumerate(summaries, 1):
        server.seed_run(
            "ann", "trials", f"r{day}", summary=summary, sweep="sw0", user="ann",
            system_metrics={"system.cpu": day}, created_at=f"2026-01-0{day}T00:00:00",
        )  # fmt: skip
    server.seed_run("ann", "other", "x1")
    return server
