"""How often a foreign writer's value is lost between the two halves of one of our writes.

Run as `python benchmarks/backfill_window.py [--edits 500] [--backfills 3]`. A foreign writer adds
one key after another to one run, each into the document that it has just read, while backfills in
other threads change keys of their own there without a pause. Prints how many of the foreign values
are missing at the end, how many were put back, and the longest time between reading and writing.
"""

from __future__ import annotations

import argparse
import json
import threading
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from wb_ops import Api, BackfillReport, BackfillRequest, connect, execute_backfill, plan_backfill
from wb_ops.client.writing import Change, send_changes
from wb_ops.devserver import DevServer

RUN = "r0"


def edit(api: Api, edits: int) -> int:
    """The foreign writer: reads the run, adds a key, sends the whole; returns keys it then saw."""
    source = api.source("ann/window")
    seen = 0
    for number in range(edits):
        node = source.fetch_node(RUN)
        change = Change(RUN, summary={f"foreign{number}": str(number)})
        send_changes(source.transport, source, [change], {RUN: node})
        seen += f"foreign{number}" in json.loads(source.fetch_node(RUN)["summaryMetrics"])
    return seen


def backfill_until(
    done: threading.Event, server: DevServer, name: str, folder: Path, reports: list[BackfillReport]
) -> None:
    """Our writer: a new value of its key each time, until the foreign one has ended."""
    warehouse = connect(f"duckdb:///{folder / name}.duckdb")
    with Api({"base_url": server.url}, api_key=server.api_key) as api:
        number = 0
        while not done.is_set():
            number += 1
            values = {name: number}
            request = BackfillRequest(
                "ann", "window", compute=lambda run, values=values: values, dataset="journal"
            )
            plan = plan_backfill(request, api, warehouse)
            reports.append(execute_backfill(plan, api, warehouse))


def measure(edits: int, backfills: int, folder: Path) -> dict[str, Any]:
    """Let them write beside each other; count."""
    reports: list[BackfillReport] = []
    done = threading.Event()
    with DevServer() as server:
        server.seed_run("ann", "window", RUN, summary="{}")
        threads = [
            threading.Thread(
                target=backfill_until, args=(done, server, f"ours{index}", folder, reports)
            )
            for index in range(backfills)
        ]
        with Api({"base_url": server.url}, api_key=server.api_key) as api:
            for thread in threads:
                thread.start()
            seen = edit(api, edits)
            done.set()
            for thread in threads:
                thread.join()
            held = json.loads(api.source("ann/window").fetch_node(RUN)["summaryMetrics"])
    return {
        "edits": edits,
        "missing": sum(f"foreign{number}" not in held for number in range(edits)),
        "unseen at once": edits - seen,
        "writes of ours": sum(len(report.written) for report in reports),
        "put back": sum(report.repaired for report in reports),
        "written again": sum(report.rewritten for report in reports),
        "longest window, s": round(max(report.window_s for report in reports), 3),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--edits", type=int, default=500)
    parser.add_argument("--backfills", type=int, default=3)
    chosen = parser.parse_args()
    with TemporaryDirectory() as name:
        for what, count in measure(chosen.edits, chosen.backfills, Path(name)).items():
            print(f"{what}: {count}")


if __name__ == "__main__":
    main()
