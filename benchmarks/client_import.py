"""`import wb_ops` beside `import requests, tenacity`, and 10,000 polls.

Run as `python benchmarks/client_import.py [--polls 10000]`. Imports are timed in fresh processes,
in turns. A poll asks whether anything has finished since: one request, no growth of memory.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import subprocess
import sys
import tracemalloc
from typing import Any

import requests
from byte_server import API_KEY, Answers, byte_server

from wb_ops import Api

TIMED = "import time; b = time.process_time(); import {}; print(time.process_time() - b)"


def imported(modules: str) -> float:
    """CPU seconds of an import in a fresh process."""
    done = subprocess.run(
        [sys.executable, "-c", TIMED.format(modules)], capture_output=True, text=True, check=True
    )
    return float(done.stdout)


def make(base: str) -> Answers:
    """A project where nothing has finished since."""
    runs = {"edges": [], "pageInfo": {"endCursor": None, "hasNextPage": False}}
    body = json.dumps({"data": {"project": {"runCount": 0, "runs": runs}}}).encode()
    return Answers({"Runs": lambda variables: body})


def poll(api: Api, number: int) -> bool:
    """Whether a run has finished since."""
    since = f"2026-01-01T00:00:00.{number:06}Z"
    filters: dict[str, Any] = {"state": "finished", "heartbeatAt": {"$gte": since}}
    return len(api.runs("ann/trials", filters, per_page=1)) > 0


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=15)
    parser.add_argument("--polls", type=int, default=10_000)
    chosen = parser.parse_args()
    imported("wb_ops"), imported("requests, tenacity")
    ratios = [
        imported("wb_ops") / imported("requests, tenacity") for _ in range(chosen.repetitions)
    ]
    print(f"import wb_ops: {statistics.median(ratios):.2f}x import requests, tenacity (CPU)")
    with byte_server(make) as server, Api({"base_url": server.url}, api_key=API_KEY) as api:
        for number in range(500):
            poll(api, number)
        requests.get(server.url + "/counts")
        gc.collect()
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        for number in range(chosen.polls):
            poll(api, number)
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - before
        asked = sum(requests.get(server.url + "/counts").json().values())
    print(
        f"{chosen.polls:,} polls: {asked / chosen.polls:.3f} requests a poll, "
        f"{grown / 1024:.0f} KiB more memory at the end"
    )


if __name__ == "__main__":
    main()
