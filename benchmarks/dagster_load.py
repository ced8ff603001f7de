"""What loading the example code location costs beyond `import dagster`, measured side by side.

Run as `python benchmarks/dagster_load.py [--rounds 7] [--runs 100000]`. Each figure is the CPU and
wall time of a process of its own: one that imports dagster only, one that also loads and validates
dagster_defs, one that does so with a component that has days, late data, a sensor and a backfill.
They take turns, so that a busy machine slows both alike; the medians are compared. A first turn is
not counted: it compiles what an installer has compiled, whatever PYTHONDONTWRITEBYTECODE says here.
The second comparison has a dev server whose project holds `--runs` runs. Prints what it measured;
fails where the median of the differences in CPU is over the bound of 0.3 s.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from wb_ops.devserver import DevServer

ROOT = Path(__file__).parents[1]
BOUND_S = 0.3
NO_BYTECODE = "PYTHONDONTWRITEBYTECODE"
CLOCK = "import time; wall, cpu = time.perf_counter(), time.process_time()\n"
ALONE = "import dagster\n"
# What Dagster itself does with any location, an empty one: it is no cost of ours.
EMPTY = ALONE + "dagster.Definitions.validate_loadable(dagster.Definitions())\n"
LOADED = (
    ALONE
    + "from dagster_defs.definitions import defs\n"
    + "dagster.Definitions.validate_loadable(defs())\n"
)
COMPONENT = (
    ALONE
    + "from wb_ops.dagster import WandbBackfill, WandbProjectComponent\n"
    + "best = WandbBackfill(name='best', recipe='best(\"val/acc\")')\n"
    + "component = WandbProjectComponent(entity='ann', project='demo', has_sensor=True,\n"
    + "    warehouse='duckdb:////data/never-opened.duckdb', partitions='created_day',\n"
    + "    start_date='2026-01-01', lookback_days=14, backfills=[best])\n"
    + "dagster.Definitions.validate_loadable(dagster.build_defs_for_component(component))\n"
)
OURS = {"dagster_defs": LOADED, "component": COMPONENT}
PROGRAMS = {"import dagster": ALONE, "empty location": EMPTY, **OURS}
REPORT = "print(time.perf_counter() - wall, time.process_time() - cpu)"


def main() -> int:
    """Compare an empty project's location, then that of a project with many runs; exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--runs", type=int, default=100_000)
    chosen = parser.parse_args()
    with DevServer() as server, tempfile.TemporaryDirectory() as compiled:
        env = environment(server, compiled)
        for program in PROGRAMS.values():
            measured(program, env)
        worst = compare("no runs in the project", env, chosen.rounds)
        seeds = (
            {"entity": "ann", "project": "demo", "run_id": f"r{number}"}
            for number in range(chosen.runs)
        )
        server.seed_runs(seeds)
        server.requests.clear()
        many = f"{chosen.runs:,} runs in the project"
        worst = max(worst, compare(many, env, chosen.rounds))
        print(f"requests to the server while loading: {len(server.requests)}")
    return 1 if worst > BOUND_S else 0


def compare(what: str, env: dict[str, str], rounds: int) -> float:
    """Print the medians of `rounds` turns; returns the larger cost of ours, in s of CPU."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in PROGRAMS}
    for _ in range(rounds):
        for name, program in PROGRAMS.items():
            times[name].append(measured(program, env))
    print(f"{what}:")
    for name, found in times.items():
        wall, cpu = (statistics.median(one) for one in zip(*found, strict=True))
        print(f"  {name:<15} {wall:.2f} s wall, {cpu:.2f} s CPU")
    costs = {name: cost_of(times[name], times["import dagster"]) for name in OURS}
    for name, cost in costs.items():
        print(f"  {name} over import dagster: {cost:.2f} s CPU (bound {BOUND_S} s)")
    return max(costs.values())


def cost_of(loaded: list[tuple[float, float]], alone: list[tuple[float, float]]) -> float:
    """The median of the differences in CPU of the same turns, in s."""
    return statistics.median(mine[1] - its[1] for mine, its in zip(loaded, alone, strict=True))


def environment(server: DevServer, compiled: str) -> dict[str, str]:
    """The variables of the measured processes, which keep their bytecode in a folder."""
    inherited = {name: one for name, one in os.environ.items() if name != NO_BYTECODE}
    return {
        **inherited,
        "PYTHONPYCACHEPREFIX": compiled,
        "PYTHONPATH": str(ROOT),
        "WB_OPS_ENTITY": "ann",
        "WB_OPS_PROJECT": "demo",
        "WB_OPS_WAREHOUSE": "duckdb:////data/never-opened.duckdb",
        "WB_OPS_BEST_METRIC": "val/acc",
        "WANDB_BASE_URL": server.url,
        "WANDB_API_KEY": server.api_key,
        "DAGSTER_DISABLE_TELEMETRY": "true",
    }


def measured(program: str, env: dict[str, str]) -> tuple[float, float]:
    """Run the program in a new process; returns its seconds of wall and of CPU."""
    done = subprocess.run(
        [sys.executable, "-c", CLOCK + program + REPORT],
        env=env, capture_output=True, text=True, check=True,
    )  # fmt: skip
    wall, cpu = done.stdout.split()[-2:]
    return float(wall), float(cpu)


if __name__ == "__main__":
    sys.exit(main())
