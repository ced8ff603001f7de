"""A project's runs, and one exported history, beside the loops of W&B's guide and the real SDK.

Run as `python benchmarks/client_sdk.py [--runs 10000] [--sample 200] [--rows 200000]`. Both sides
read from the same dev server, in processes of their own and in turns; each answer is late by the
latency. The SDK asks for each run by itself: it reads the first `--sample` runs, and its seconds
are scaled to all of them. Everything else is measured whole.
"""

from __future__ import annotations

import argparse
import json

from client_listing import node
from dev_server import dev_server, history_scripts, versus

from wb_ops.devserver import DevServer

SDK_LISTING = """
import itertools, time, wandb
api = wandb.Api(timeout=60)
began = time.perf_counter()
rows = [
    {{"name": run.name}}
    | {{key: value for key, value in run.config.items() if not key.startswith("_")}}
    | run.summary._json_dict
    for run in itertools.islice(api.runs("ann/trials"), {sample})
]
print(time.perf_counter() - began, len(rows))
"""
OUR_LISTING = """
import time
import wb_ops as wandb
with wandb.Api() as api:
    began = time.perf_counter()
    rows = {what}
    print(time.perf_counter() - began, len(rows))
"""
THE_LOOP = """[
        {"name": run.name}
        | {key: value for key, value in run.config.items() if not key.startswith("_")}
        | run.summary._json_dict
        for run in api.runs("ann/trials")
    ]"""
LISTINGS = {
    "the same loop": OUR_LISTING.format(what=THE_LOOP),
    "to_arrow": OUR_LISTING.format(what='api.runs("ann/trials").to_arrow()'),
}
KEYS = 10


def seed(server: DevServer, runs: int, rows: int) -> None:
    """Many runs with config and summary; one exported run with many rows."""
    server.seed_runs(
        {
            "entity": "ann", "project": "trials", "run_id": f"r{index:06}",
            "raw_config": node(index)["config"], "summary": node(index)["summaryMetrics"],
        }
        for index in range(runs)
    )  # fmt: skip
    history = (
        json.dumps(
            {"_step": step, "_timestamp": 1.7e9 + step / 10, "_runtime": step / 10}
            | {f"m{k}": step / (k + 3) for k in range(KEYS)}
        )
        for step in range(rows)
    )
    server.seed_run("ann", "long", "one", history=list(history))
    server.export_run("ann", "long", "one")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--sample", type=int, default=200, help="runs that the SDK reads")
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--latency", type=float, default=0.03, help="seconds an answer")
    parser.add_argument("--repetitions", type=int, default=3)
    chosen = parser.parse_args()
    sdk_listing = SDK_LISTING.format(sample=chosen.sample)
    options = {"latency_s": chosen.latency, "parquet_rows_per_file": 100_000}
    with dev_server(seed, chosen.runs, chosen.rows, **options) as side:
        ms = f"{chosen.latency * 1000:.0f} ms"
        name = f"{chosen.runs:,} runs, {ms}"
        scale = chosen.runs / chosen.sample
        versus(name, side, sdk_listing, LISTINGS, chosen.repetitions, scale)
        name = f"one exported history, {chosen.rows:,} rows x {KEYS} keys, {ms}"
        versus(name, side, *history_scripts("ann/long/one"), chosen.repetitions)


if __name__ == "__main__":
    main()
