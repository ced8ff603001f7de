"""Histories to Arrow, beside requests + pyarrow on the same bytes with the same threads.

Run as `python benchmarks/client_history.py [--repetitions 5]`. One history of 1,000,000 rows x 10
keys in 10 files; then 200 runs x 10,000 rows x 10 keys, a file each. The limit asks for the signed
URLs with the same requests, downloads with a requests.Session a thread, and reads with pyarrow.
"""

from __future__ import annotations

import argparse
import io
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import requests
from byte_server import API_KEY, Answers, byte_server
from client_listing import node
from measure import compare

from wb_ops import Api
from wb_ops.client.history import HistoryReader
from wb_ops.client.operations import HISTORY_SOURCES, RUN, RUNS, Operation, history_sources_of

KEYS = 10
THREADS = 10
ONE_ROWS, ONE_FILES = 1_000_000, 10
MANY_RUNS, MANY_ROWS = 200, 10_000
PER_REQUEST = 20


def parquet(first: int, rows: int) -> bytes:
    """Rows of float metrics as a file."""
    rng = np.random.default_rng(first)
    columns = {"_step": np.arange(first, first + rows), "_timestamp": np.arange(rows) + 1.7e9}
    columns |= {f"metric_{k}": rng.standard_normal(rows) for k in range(KEYS)}
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink, compression="snappy", row_group_size=100_000)
    return sink.getvalue()


def make(base: str) -> Answers:
    """One long run `one`, and 200 short ones that share their bytes."""
    per_file = ONE_ROWS // ONE_FILES
    files = {f"/one-{n}": parquet(n * per_file, per_file) for n in range(ONE_FILES)}
    files["/many"] = parquet(0, MANY_ROWS)

    def sources(name: str) -> str:
        is_one = name == "one"
        paths = [f"/one-{n}" for n in range(ONE_FILES)] if is_one else ["/many"]
        urls = ", ".join(f'"{base}{path}"' for path in paths)
        rows = ONE_ROWS if is_one else MANY_ROWS
        return (
            f'{{"historyLineCount": {rows}, "historyKeys": {{"lastStep": {rows - 1}}}, '
            f'"parquetHistory": {{"parquetUrls": [{urls}], "liveData": []}}}}'
        )

    def asked(variables: dict[str, Any]) -> bytes:
        names = {key: value for key, value in variables.items() if re.match(r"name\d*$", key)}
        runs = ", ".join(
            f'"{key.replace("name", "run")}": {sources(value)}' for key, value in names.items()
        )
        return f'{{"data": {{"project": {{{runs}}}}}}}'.encode()

    def listed(variables: dict[str, Any]) -> bytes:
        import json

        edges = [{"node": {**node(i), "historyLineCount": MANY_ROWS}} for i in range(MANY_RUNS)]
        runs = {"edges": edges, "pageInfo": {"hasNextPage": False}}
        return json.dumps({"data": {"project": {"runCount": MANY_RUNS, "runs": runs}}}).encode()

    def run(variables: dict[str, Any]) -> bytes:
        import json

        return json.dumps({"data": {"project": {"run": {**node(0), "name": "one"}}}}).encode()

    operations = {"RunParquetHistory": asked, "Runs": listed, "Run": run}
    return Answers(operations, files.__getitem__)


class Limit:
    """requests + pyarrow, a session a thread."""

    def __init__(self, url: str) -> None:
        self.url, self._local = url, threading.local()

    @property
    def session(self) -> requests.Session:
        if not hasattr(self._local, "session"):
            self._local.session = requests.Session()
        return self._local.session

    def ask(self, operation: Operation) -> dict[str, Any]:
        body = {
            "operationName": operation.name,
            "query": operation.document,
            "variables": dict(operation.variables),
        }
        answer = self.session.post(self.url + "/graphql", json=body, auth=("api", API_KEY))
        return answer.json()["data"]["project"]

    def read(self, url: str) -> pa.Table:
        return pq.read_table(pa.BufferReader(self.session.get(url).content))

    def one(self) -> int:
        scope = {"entity": "ann", "project": "trials"}
        self.ask(Operation("Run", RUN, {**scope, "name": "one"}))
        variables = {**scope, "name": "one", "liveKeys": ["_step"]}
        run = self.ask(Operation("RunParquetHistory", HISTORY_SOURCES, variables))["run"]
        with ThreadPoolExecutor(THREADS) as pool:
            tables = list(pool.map(self.read, run["parquetHistory"]["parquetUrls"]))
        return pa.concat_tables(tables).num_rows

    def many(self) -> int:
        scope = {"entity": "ann", "project": "trials"}
        variables = {**scope, "cursor": None, "perPage": 1000, "filters": "{}", "order": "+"}
        edges = self.ask(Operation("Runs", RUNS, variables))["runs"]["edges"]
        names = [edge["node"]["name"] for edge in edges]
        chunks = [names[at : at + PER_REQUEST] for at in range(0, len(names), PER_REQUEST)]

        def of(name: str, document: str, **variables: Any) -> Operation:
            return Operation(name, document, {**scope, **variables})

        def rows(run: dict[str, Any]) -> int:
            return sum(self.read(url).num_rows for url in run["parquetHistory"]["parquetUrls"])

        with ThreadPoolExecutor(THREADS) as pool:
            found = pool.map(lambda some: self.ask(history_sources_of(of, some)), chunks)
            runs = [run for answer in found for run in answer.values()]
            return sum(pool.map(rows, runs))


def one(url: str) -> int:
    """`history_table` of the long run."""
    with Api({"base_url": url}, api_key=API_KEY) as api:
        return int(api.run("ann/trials/one").history_table().num_rows)


def many(url: str) -> int:
    """`scan_histories` of the short runs."""
    with Api({"base_url": url}, api_key=API_KEY) as api:
        assert isinstance(api.reader, HistoryReader)
        assert api.reader.max_workers == THREADS
        runs = api.runs("ann/trials", per_page=1000)
        return sum(reader.read_all().num_rows for _, reader in api.scan_histories(runs))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=5)
    chosen = parser.parse_args()
    with byte_server(make) as server:
        limit = Limit(server.url)
        assert one(server.url) == limit.one() == ONE_ROWS
        assert many(server.url) == limit.many() == MANY_RUNS * MANY_ROWS
        for latency_s in (0.0, 0.03):
            server.set_latency(latency_s)
            ms = f"{latency_s * 1000:.0f} ms"
            name = f"one history, {ONE_ROWS:,} rows x {KEYS} keys, {ms}"
            compare(name, lambda: one(server.url), limit.one, chosen.repetitions)
            name = f"{MANY_RUNS} histories x {MANY_ROWS:,} rows x {KEYS} keys, {ms}"
            compare(name, lambda: many(server.url), limit.many, chosen.repetitions)


if __name__ == "__main__":
    main()
