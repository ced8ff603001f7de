"""A history that is not exported yet, by windows of steps, beside the real SDK.

Run as `python benchmarks/client_windows.py [--rows 100000] [--latency 0.03]`. Both read the same
run from the same dev server, in processes of their own and in turns; each answer is late by the
latency. The SDK's side is the loop of W&B's guide, `pd.DataFrame(run.scan_history())`; ours is the
same loop, a table, and a table as a frame.
"""

from __future__ import annotations

import argparse
import json

from dev_server import dev_server, history_scripts, versus

from wb_ops.devserver import DevServer

METRICS = 5


def seed(server: DevServer, rows: int) -> None:
    """One run that is not exported."""
    history = (
        json.dumps(
            {"_step": step, "_timestamp": 1.7e9 + step / 10, "_runtime": step / 10}
            | {f"m{k}": step / (k + 3) for k in range(METRICS)}
        )
        for step in range(rows)
    )
    server.seed_run("ann", "trials", "r1", history=list(history))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--latency", type=float, default=0.03, help="seconds an answer")
    parser.add_argument("--repetitions", type=int, default=5)
    chosen = parser.parse_args()
    with dev_server(seed, chosen.rows, latency_s=chosen.latency, parquet=False) as side:
        name = f"step windows, {chosen.rows:,} rows, {chosen.latency * 1000:.0f} ms"
        versus(name, side, *history_scripts("ann/trials/r1"), chosen.repetitions)


if __name__ == "__main__":
    main()
