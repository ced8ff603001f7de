"""Peak memory of 100,000,000 rows through `scan_histories`.

Run as `python benchmarks/client_memory.py [--runs 5000] [--large 50000000]`. One run with
50,000,000 rows in 50 files, and 5,000 runs of 10,000 rows whose keys are all different. The reader
runs in a process of its own; the peak is that of its resident memory.
"""

from __future__ import annotations

import argparse
import io
import json
import re
import resource
import time
from functools import lru_cache
from multiprocessing import get_context
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from byte_server import API_KEY, Answers, byte_server
from client_listing import node

from wb_ops import Api

ROWS_PER_FILE = 1_000_000
SMALL_ROWS = 10_000
SMALL_KEYS = 5


def file_of(first: int, rows: int, keys: list[str]) -> bytes:
    """A file of float metrics that compresses well, so that making it costs little."""
    columns: dict[str, Any] = {"_step": np.arange(first, first + rows)}
    columns |= {key: np.arange(rows) % 1000 / 8 for key in keys}
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink, compression="zstd", row_group_size=rows)
    return sink.getvalue()


def make(base: str, runs: int, large: int) -> Answers:
    """Files are made when they are asked for; those of small runs differ in their keys only."""
    template = file_of(0, SMALL_ROWS, [f"run_XXXXX_key_{k}" for k in range(SMALL_KEYS)])

    @lru_cache(maxsize=4)
    def file(path: str) -> bytes:
        kind, number = path.strip("/").split("-")
        if kind == "large":
            first = int(number) * ROWS_PER_FILE
            return file_of(first, min(ROWS_PER_FILE, large - first), ["loss", "acc"])
        return template.replace(b"XXXXX", f"{int(number):05}".encode())

    def sources(name: str) -> dict[str, Any]:
        rows, paths = SMALL_ROWS, [f"/small-{name[1:]}"]
        if name == "large":
            rows, paths = large, [f"/large-{n}" for n in range(-(-large // ROWS_PER_FILE))]
        return {
            "historyLineCount": rows,
            "historyKeys": {"lastStep": rows - 1},
            "parquetHistory": {"parquetUrls": [base + path for path in paths], "liveData": []},
        }

    def asked(variables: dict[str, Any]) -> bytes:
        names = {key: value for key, value in variables.items() if re.match(r"name\d*$", key)}
        found = {key.replace("name", "run"): sources(value) for key, value in names.items()}
        return json.dumps({"data": {"project": found}}).encode()

    def listed(variables: dict[str, Any]) -> bytes:
        start = int(variables["cursor"] or 0)
        stop = min(start + variables["perPage"], runs + 1)
        edges = [{"node": listed_run(index)} for index in range(start, stop)]
        info = {"hasNextPage": stop <= runs, "endCursor": str(stop)}
        found = {"runCount": runs + 1, "runs": {"edges": edges, "pageInfo": info}}
        return json.dumps({"data": {"project": found}}).encode()

    def listed_run(index: int) -> dict[str, Any]:
        if index == 0:
            keys = {"lastStep": large - 1}
            return {**node(0), "name": "large", "historyLineCount": large, "historyKeys": keys}
        return {**node(index), "name": f"r{index:05}", "historyLineCount": SMALL_ROWS}

    return Answers({"RunParquetHistory": asked, "Runs": listed}, file)


def read(url: str, results: Any) -> None:
    """Read everything, batch by batch."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.monotonic()
    rows = runs = 0
    with Api({"base_url": url}, api_key=API_KEY) as api:
        for _, reader in api.scan_histories(api.runs("ann/trials")):
            runs += 1
            for batch in reader:
                rows += batch.num_rows
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    results.send((runs, rows, before / 1024, peak / 1024, time.monotonic() - began))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5_000)
    parser.add_argument("--large", type=int, default=50_000_000)
    chosen = parser.parse_args()
    context = get_context("spawn")
    with byte_server(make, chosen.runs, chosen.large) as server:
        receiver, sender = context.Pipe()
        process = context.Process(target=read, args=(server.url, sender))
        process.start()
        runs, rows, before, peak, seconds = receiver.recv()
        process.join()
    assert (runs, rows) == (chosen.runs + 1, chosen.runs * SMALL_ROWS + chosen.large)
    print(
        f"{rows:,} rows of {runs:,} runs, {chosen.large:,} of them in one: peak memory {peak:.0f} "
        f"MiB, {before:.0f} MiB of it after the imports ({seconds:.0f} s)"
    )


if __name__ == "__main__":
    main()
