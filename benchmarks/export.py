"""The export against the limit of the same bytes, against a loop of W&B's SDK, and when idle.

Run as `python benchmarks/export.py [speed|idle|hourly|memory|names] [--runs 200] [--rows 10000]`.
The dev server runs in a process of its own. Every ratio compares two measurements of one run:

speed   a full export into DuckDB against `requests` + pyarrow + `INSERT ... SELECT` of the same
        parquet files with the same number of threads, and against `scan_history` of the SDK on
        fewer runs (`--sample`), by rows a second.
idle    an incremental export with nothing changed, with 10 and with 100 runs changed, and a
        reconcile: requests, and seconds of work (this process's CPU).
hourly  a load of 10 rows against DuckDB's own cost of the same (open, read the state, close, open,
        one transaction, close).
memory  one run of 100,000,000 rows in 100 files, from a server of pre-rendered answers; peak
        memory of the export over time.
names   `--runs` runs with metrics of their own; peak memory of the export.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb
import psutil
import requests
from byte_server import API_KEY, byte_server
from client_memory import make

from wb_ops import Api, ExportRequest, connect, execute_export, plan_export

REQUEST = ExportRequest("ann", "bench")
KEYS = 10
MANY_ROWS = 100_000_000
WORKERS = 8

SDK_LOOP = """
import os, sys, time
import duckdb, pandas, wandb
began = time.monotonic()
with duckdb.connect(sys.argv[1]) as connection:
    rows = 0
    for number, run in enumerate(wandb.Api().runs("ann/bench")):
        if number == int(sys.argv[2]):
            break
        frame = pandas.DataFrame(run.scan_history())
        frame["run_id"] = run.id
        sql = "insert into history by name select * from frame"
        if not rows:
            sql = "create table history as select * from frame"
        connection.execute(sql)
        rows += len(frame)
print(time.monotonic() - began, rows)
"""


@contextmanager
def dev_server(folder: Path) -> Iterator[dict[str, Any]]:
    """A server in a process of its own; yields its URL and key."""
    command = [sys.executable, "-m", "wb_ops.devserver", "--port", "0", "--db", str(folder / "db")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())
    finally:
        process.terminate()
        process.wait(30)


def seed(server: dict[str, Any], runs: list[dict[str, Any]]) -> None:
    """Make runs through the server's control routes."""
    control(server, "POST", "/_dev/seed", {"runs": runs})


def control(server: dict[str, Any], method: str, path: str, body: dict[str, Any]) -> None:
    request = urllib.request.Request(
        server["url"] + path,
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
        method=method,
    )
    urllib.request.urlopen(request).read()


def run_seed(run_id: str, rows: int, keys: list[str], **fields: Any) -> dict[str, Any]:
    history = [
        {"_step": step, "_timestamp": 1.7e9 + step}
        | {key: step / 7 + at for at, key in enumerate(keys)}
        for step in range(rows)
    ]
    old = "2026-01-01T00:00:00"
    common = {"entity": "ann", "project": "bench", "created_at": old, "heartbeat_at": old}
    return {**common, "run_id": run_id, "history": history, **fields}


def export(api: Api, url: str, **changes: Any) -> tuple[Any, Any, float]:
    """Plan, report and seconds of one export."""
    warehouse = connect(url)
    began = time.monotonic()
    plan = plan_export(replace(REQUEST, max_workers=WORKERS, **changes), api, warehouse)
    report = execute_export(plan, api, warehouse)
    return plan, report, time.monotonic() - began


def limit(server: dict[str, Any], api: Api, path: Path) -> tuple[float, int]:
    """The same parquet with as little as can be: URLs, GET, INSERT ... SELECT."""
    source = api.source("ann/bench")
    began = time.monotonic()
    run_ids = [node["name"] for node in source.iter_nodes()]
    with TemporaryDirectory() as folder, ThreadPoolExecutor(WORKERS) as pool:
        urls = [
            url
            for found in pool.map(
                api.reader.sources_of,
                [source] * len(range(0, len(run_ids), 20)),
                [run_ids[at : at + 20] for at in range(0, len(run_ids), 20)],
            )
            for one in found.values()
            for url in one.urls
        ]

        def fetch(numbered: tuple[int, str]) -> str:
            file = Path(folder) / f"{numbered[0]}.parquet"
            file.write_bytes(requests.get(numbered[1], timeout=60).content)
            return str(file)

        files = list(pool.map(fetch, enumerate(urls)))
        with duckdb.connect(str(path)) as connection:
            connection.execute("SET preserve_insertion_order = false")
            connection.execute(f"CREATE TABLE history AS SELECT * FROM read_parquet({files})")
            rows = connection.execute("SELECT count(*) FROM history").fetchall()[0][0]
    return time.monotonic() - began, rows


def speed(server: dict[str, Any], folder: Path, arguments: argparse.Namespace) -> None:
    keys = [f"metric{at}" for at in range(KEYS)]
    for index in range(arguments.runs):
        seed(server, [run_seed(f"r{index:04}", arguments.rows, keys)])
    with open_api(server) as api:
        limit(server, api, folder / "warm.db")
        walls = []
        for turn in range(arguments.turns):
            spent = [time.process_time()]
            bare, rows = limit(server, api, folder / f"limit{turn}.db")
            spent.append(time.process_time())
            _, report, ours = export(api, f"duckdb:///{folder / f'ours{turn}.db'}", mode="full")
            spent.append(time.process_time())
            assert report.history_rows == rows == arguments.runs * arguments.rows
            walls.append((bare, ours))
            print(
                f"{rows:,} rows x {KEYS} keys: limit {bare:.1f} s, export {ours:.1f} s, "
                f"ratio {ours / bare:.2f} (target <= 2.0); CPU {spent[1] - spent[0]:.1f} s and "
                f"{spent[2] - spent[1]:.1f} s"
            )
    environ = {**os.environ, "WANDB_BASE_URL": server["url"], "WANDB_API_KEY": key_of(server)}
    done = subprocess.run(
        [sys.executable, "-c", SDK_LOOP, str(folder / "sdk.db"), str(arguments.sample)],
        env={**environ, "WANDB_SILENT": "true"}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    seconds, sdk_rows = map(float, done.stdout.split()[-2:])
    ours = min(ours for _, ours in walls)
    ratio = (arguments.runs * arguments.rows / ours) / (sdk_rows / seconds)
    print(
        f"scan_history of the SDK on {arguments.sample} runs ({sdk_rows:,.0f} rows): "
        f"{seconds:.1f} s; rows a second {ratio:.1f}x (target >= 20)"
    )


def idle(server: dict[str, Any], folder: Path, arguments: argparse.Namespace) -> None:
    for at in range(0, arguments.runs, 1000):
        numbers = range(at, min(at + 1000, arguments.runs))
        # Most have logged nothing: their rows would cost the first export, which is not measured.
        seed(
            server,
            [run_seed(f"r{n:05}", 2 * (n < 100), ["loss"], config={"lr": n}) for n in numbers],
        )
    url = f"duckdb:///{folder / 'idle.db'}"
    with open_api(server) as api:
        _, report, seconds = export(api, url)
        print(f"first export of {report.runs:,} runs: {seconds:.1f} s, {report.requests} requests")
        # One run is recent, so that the watermark is.
        control(server, "PATCH", "/_dev/runs/ann/bench/r00000", {"heartbeat_at": now(0)})
        export(api, url)
        work(api, "nothing changed", lambda: export(api, url), "<= 5 requests, < 1 s")
        for changed in (10, 100):
            rows = [json.dumps({"_step": changed + step, "loss": 1.0}) for step in range(2)]
            for n in range(changed):
                control(server, "POST", f"/_dev/runs/ann/bench/r{n:05}/history", {"rows": rows})
            work(api, f"{changed} runs changed", lambda: export(api, url), "")
        per_thousand = work(api, "reconcile", lambda: export(api, url, mode="reconcile"), "")
        print(
            f"reconcile: {per_thousand / (arguments.runs / 1000):.1f} requests a thousand runs "
            "(<= 3)"
        )


def now(ago_s: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(time.time() - ago_s))


def work(api: Api, what: str, action: Any, target: str) -> int:
    """Print requests and this process's CPU seconds."""
    sent, cpu, began = api.transport.traffic.requests, time.process_time(), time.monotonic()
    _, report, _ = action()
    sent = api.transport.traffic.requests - sent
    print(
        f"{what}: {sent} requests, {time.process_time() - cpu:.2f} s of work, "
        f"{time.monotonic() - began:.2f} s wall, {report.runs} runs and {report.history_rows} rows "
        f"written {f'({target})' if target else ''}"
    )
    return int(sent)


def hourly(server: dict[str, Any], folder: Path, arguments: argparse.Namespace) -> None:
    seed(server, [run_seed(f"r{n}", 10, ["loss"]) for n in range(50)])
    url = f"duckdb:///{folder / 'hourly.db'}"
    with open_api(server) as api:
        export(api, url)
        ratios: dict[int, list[float]] = {1: [], 2: []}
        for turn in range(arguments.turns):
            seed(server, [run_seed(f"n{turn}", 10, ["loss"], heartbeat_at=now(0))])
            spent = time.process_time()
            export(api, url)
            ours = time.process_time() - spent
            for openings, found in ratios.items():
                copy = folder / f"fixed{turn}-{openings}.db"
                shutil.copy(folder / "hourly.db", copy)
                spent = time.process_time()
                fixed_cost(copy, openings)
                found.append(ours / (time.process_time() - spent))
        once, twice = (sorted(found)[len(found) // 2] for found in ratios.values())
        print(
            f"10 rows: CPU of the export over DuckDB's own {twice:.2f} (<= 1.5), "
            f"{once:.2f} over a load that holds the file from reading the state to the end"
        )


def fixed_cost(path: Path, openings: int) -> None:
    """What DuckDB itself takes: open, read the state, one transaction into each table, close.

    With two openings nothing is locked while W&B would be asked, as in the export.
    """
    state = "SELECT * FROM ann__bench._wb_receipts"
    if openings == 2:
        with duckdb.connect(str(path)) as connection:
            connection.execute(state).fetchall()
    with duckdb.connect(str(path)) as connection:
        connection.execute(state).fetchall()
        connection.begin()
        for table in ("runs", "runs_flat", "history", "_wb_receipts", "_wb_state", "_wb_loads"):
            name = f'ann__bench."{table}"'
            connection.execute(f"CREATE TEMP TABLE t AS SELECT * FROM {name} LIMIT 10")
            key = connection.execute("SELECT * FROM t LIMIT 0").description[0][0]
            connection.execute(f'DELETE FROM {name} WHERE "{key}" IN (SELECT "{key}" FROM t)')
            connection.execute(f"INSERT INTO {name} SELECT * FROM t")
            connection.execute("DROP TABLE t")
        connection.commit()


def memory(server: dict[str, Any], folder: Path, arguments: argparse.Namespace) -> None:
    with byte_server(make, 0, MANY_ROWS) as rendered:
        watched({"url": rendered.url, "api_key": API_KEY}, folder, f"one run of {MANY_ROWS:,} rows")


def names(server: dict[str, Any], folder: Path, arguments: argparse.Namespace) -> None:
    for at in range(0, arguments.runs, 100):
        numbers = range(at, min(at + 100, arguments.runs))
        seed(
            server,
            [run_seed(f"r{n:05}", 100, [f"m{n}/{k}" for k in range(5)]) for n in numbers],
        )
    watched(server, folder, f"{arguments.runs:,} runs with metrics of their own")


def watched(server: dict[str, Any], folder: Path, what: str) -> None:
    """Export in this process and print its memory over time."""
    samples: list[int] = []
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(0.5):
            samples.append(psutil.Process().memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    with open_api(server) as api:
        _, report, seconds = export(api, f"duckdb:///{folder / 'memory.db'}")
    stop.set()
    watcher.join()
    quarter = max(1, len(samples) // 4)
    peaks = [max(samples[at : at + quarter]) / 2**20 for at in range(0, len(samples), quarter)]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{what}: {report.history_rows:,} rows in {seconds:.0f} s, peak {peak:.0f} MiB (< 1536), "
        f"by quarters {', '.join(f'{one:.0f}' for one in peaks)} MiB"
    )


def key_of(server: dict[str, Any]) -> str:
    return str(server["api_key"])


@contextmanager
def open_api(server: dict[str, Any]) -> Iterator[Api]:
    with Api({"base_url": server["url"]}, api_key=key_of(server)) as api:
        yield api


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["speed", "idle", "hourly", "memory", "names"])
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--sample", type=int, default=5)
    parser.add_argument("--turns", type=int, default=3)
    arguments = parser.parse_args()
    with TemporaryDirectory() as folder, dev_server(Path(folder)) as server:
        globals()[arguments.what](server, Path(folder), arguments)


if __name__ == "__main__":
    main()
