"""Two keys written back into many runs, against W&B's documented loop on a smaller sample.

Run as `python benchmarks/backfill.py [--runs 10000] [--safe 500] [--sample 60] [--histories 400]
[--latency 0.03]`. The dev server runs in a process of its own and every answer is delayed by the
latency. Prints what it measured: requests a changed run (also of `safe=True`, one run at a time, on
fewer runs), seconds a run, the ratio to the loop, the time between reading a run and the answer to
its write, what a second run costs that finds nothing to do, and what planning a function over
whole histories costs.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from wb_ops import (
    Api,
    BackfillRequest,
    Run,
    connect,
    execute_backfill,
    plan_backfill,
    write_backfill,
)

SDK_LOOP = """
import time, wandb
began = time.monotonic()
changed = 0
for run in wandb.Api().runs("ann/sample"):
    run.summary["a"] = 1
    run.summary["b"] = 2
    run.summary.update()
    changed += 1
print(time.monotonic() - began, changed)
"""


@contextmanager
def dev_server(folder: Path) -> Iterator[dict[str, str]]:
    """A server in a process of its own; yields its URL and key."""
    command = [sys.executable, "-m", "wb_ops.devserver", "--port", "0", "--db", str(folder / "db")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())
    finally:
        process.terminate()
        process.wait(30)


def control(server: dict[str, str], method: str, path: str, body: dict[str, Any] | None = None):
    """Ask the server's control routes."""
    request = urllib.request.Request(
        server["url"] + path,
        json.dumps(body or {}).encode(),
        {"Content-Type": "application/json"},
        method=method,
    )
    with urllib.request.urlopen(request) as answer:
        return json.loads(answer.read() or "null")


def seed(server: dict[str, str], project: str, count: int, rows: int = 0) -> None:
    """Finished runs with a summary of twenty members."""
    summary = json.dumps({f"metric{index}": index / 7 for index in range(20)})
    history = [{"_step": step, "acc": step / 7, "loss": 1.0} for step in range(rows)]
    for start in range(0, count, 1000):
        runs = [
            {"entity": "ann", "project": project, "run_id": f"r{index:05}", "summary": summary,
             "history": history}
            for index in range(start, min(start + 1000, count))
        ]  # fmt: skip
        control(server, "POST", "/_dev/seed", {"runs": runs})


def slow_down(server: dict[str, str], latency_s: float) -> None:
    """Delay every answer."""
    fault = {"match": {"path": "/graphql"}, "respond": {"delay_s": latency_s}, "times": None}
    control(server, "POST", "/_dev/faults", fault)


def ours(
    server: dict[str, str], folder: Path, project: str, *, safe: bool = False
) -> dict[str, float]:
    """Plan and execute, then again with nothing to do."""
    warehouse = connect(f"duckdb:///{folder / project}.duckdb")
    request = BackfillRequest("ann", project, compute=lambda run: {"a": 1, "b": 2}, safe=safe)
    with Api({"base_url": server["url"]}, api_key=server["api_key"]) as api:
        began = time.monotonic()
        report = execute_backfill(plan_backfill(request, api, warehouse), api, warehouse)
        seconds = time.monotonic() - began
        sent, began = api.transport.traffic.requests, time.monotonic()
        again = write_backfill(request, api, warehouse)
        assert not again.written
        return {
            "again_seconds": time.monotonic() - began,
            "runs": report.runs,
            "values": len(report.written),
            "seconds": seconds,
            "requests": sent,
            "window_s": report.window_s,
            "again_requests": api.transport.traffic.requests - sent,
        }


def histories(server: dict[str, str], folder: Path, count: int) -> None:
    """Plan a function of each run's whole history; print what that asks for."""
    warehouse = connect(f"duckdb:///{folder / 'histories.duckdb'}")

    def best(run: Run) -> dict[str, float]:
        return {"best": max(run.history_table()["acc"].to_pylist())}

    request = BackfillRequest("ann", "histories", compute=best)
    control(server, "DELETE", "/_dev/requests")
    with Api({"base_url": server["url"]}, api_key=server["api_key"]) as api:
        began = time.monotonic()
        plan = plan_backfill(request, api, warehouse)
        seconds = time.monotonic() - began
    assert len(plan.to_set) == count
    asked = [one.get("path") == "/graphql" for one in control_requests(server)]
    print(
        f"a function of {count} whole histories: {sum(asked) / count:.3f} requests and "
        f"{(len(asked) - sum(asked)) / count:.1f} files a run, "
        f"{1000 * seconds / count:.1f} ms a run"
    )


def theirs(server: dict[str, str], folder: Path) -> dict[str, float]:
    """The loop of W&B's guide, with the real SDK."""
    environ = {
        **os.environ, "WANDB_BASE_URL": server["url"], "WANDB_API_KEY": server["api_key"],
        "WANDB_DIR": str(folder), "HOME": str(folder), "WANDB_SILENT": "true",
    }  # fmt: skip
    control(server, "DELETE", "/_dev/requests")
    done = subprocess.run(
        [sys.executable, "-c", SDK_LOOP], env=environ, capture_output=True, text=True, check=True
    )
    seconds, changed = map(float, done.stdout.split()[-2:])
    asked = [one for one in control_requests(server) if one.get("path") == "/graphql"]
    return {"runs": changed, "seconds": seconds, "requests": len(asked)}


def control_requests(server: dict[str, str]) -> list[dict[str, Any]]:
    """What the server was asked."""
    with urllib.request.urlopen(server["url"] + "/_dev/requests") as answer:
        found = json.loads(answer.read())
    return found if isinstance(found, list) else found["requests"]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--safe", type=int, default=500, help="runs of the safe mode")
    parser.add_argument("--sample", type=int, default=60, help="runs of the SDK's loop")
    parser.add_argument("--histories", type=int, default=400, help="runs of the function")
    parser.add_argument("--latency", type=float, default=0.03, help="seconds an answer")
    chosen = parser.parse_args()
    with TemporaryDirectory() as name, dev_server(Path(name)) as server:
        seed(server, "bench", chosen.runs)
        seed(server, "safe", chosen.safe)
        seed(server, "sample", chosen.sample)
        seed(server, "histories", chosen.histories, rows=100)
        slow_down(server, chosen.latency)
        fast, loop = ours(server, Path(name), "bench"), theirs(server, Path(name))
        safe = ours(server, Path(name), "safe", safe=True)
        histories(server, Path(name), chosen.histories)
    for who, one in (("wb_ops", fast), ("wb_ops, safe", safe), ("W&B's loop", loop)):
        print(
            f"{who}: {one['runs']:.0f} runs in {one['seconds']:.1f} s, "
            f"{1000 * one['seconds'] / one['runs']:.1f} ms and "
            f"{one['requests'] / one['runs']:.3f} requests a changed run"
        )
    by_time = (loop["seconds"] / loop["runs"]) / (fast["seconds"] / fast["runs"])
    by_requests = (loop["requests"] / loop["runs"]) / (fast["requests"] / fast["runs"])
    print(f"ratio: {by_time:.1f}x in time, {by_requests:.1f}x in requests")
    print(f"longest time between reading a run and its write: {fast['window_s']:.2f} s")
    print(
        f"again, with nothing to do: {fast['again_requests']:.0f} requests, "
        f"{fast['again_seconds']:.1f} s"
    )


if __name__ == "__main__":
    main()
