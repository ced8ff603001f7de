"""`import wb_ops` and its `Api` beside `import requests, tenacity`, and 10,000 polls.

Run as `python benchmarks/client_import.py [--polls 10000]`. Imports are timed in fresh processes,
in turns. A poll asks whether anything has finished since: one request, no growth of memory, by
what Python has allocated and by what the process holds (Linux).
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import requests
from byte_server import API_KEY, Answers, byte_server

from wb_ops import Api

TIMED = "import time; b = time.process_time(); {}; print(time.process_time() - b)"
BASE = "import requests, tenacity"
OURS = ("import wb_ops", "from wb_ops import Api")


def imported(statement: str) -> float:
    """CPU seconds of an import in a fresh process."""
    done = subprocess.run(
        [sys.executable, "-c", TIMED.format(statement)], capture_output=True, text=True, check=True
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


def resident_kib() -> int:
    """What the process holds of memory now, not at its peak."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE") // 1024


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=15)
    parser.add_argument("--polls", type=int, default=10_000)
    chosen = parser.parse_args()
    for statement in OURS:
        imported(statement), imported(BASE)
        ratios = [imported(statement) / imported(BASE) for _ in range(chosen.repetitions)]
        print(f"{statement}: {statistics.median(ratios):.2f}x {BASE} (CPU)")
    with byte_server(make) as server, Api({"base_url": server.url}, api_key=API_KEY) as api:
        for number in range(500):
            poll(api, number)
        requests.get(server.url + "/counts")
        gc.collect()
        tracemalloc.start()
        before, held = tracemalloc.get_traced_memory()[0], resident_kib()
        for number in range(chosen.polls):
            poll(api, number)
        gc.collect()
        grown, held_after = tracemalloc.get_traced_memory()[0] - before, resident_kib()
        asked = sum(requests.get(server.url + "/counts").json().values())
    print(
        f"{chosen.polls:,} polls: {asked / chosen.polls:.3f} requests a poll, "
        f"{grown / 1024:.0f} KiB more memory at the end; resident {held / 1024:.1f} MiB before, "
        f"{held_after / 1024:.1f} MiB after"
    )


if __name__ == "__main__":
    main()
