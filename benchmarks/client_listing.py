"""10,000 runs with config and summary to Arrow, beside requests + json on the same bytes.

Run as `python benchmarks/client_listing.py [--runs 10000] [--repetitions 5]`. The limit fetches the
same pages with one requests.Session and parses them, and the config and summary in them, with json.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from typing import Any

import requests
from byte_server import API_KEY, Answers, byte_server
from measure import compare

from wb_ops import Api
from wb_ops.client.operations import RUNS


def node(index: int) -> dict[str, Any]:
    """A run with 20 config values and 30 summary values."""
    config = {f"param_{k}": {"value": k * 0.1 + index, "desc": None} for k in range(19)}
    summary: dict[str, Any] = {f"metric_{k}": (index * 31 + k) / 7 for k in range(27)}
    commit = hashlib.sha1(b"%d" % index).hexdigest()
    summary |= {"_step": 999, "_runtime": 9.5, "_wandb": {"runtime": 9}}
    return {
        "id": f"UnVuOnYxOnI{index}", "name": f"r{index:07}", "displayName": f"brave-lake-{index}",
        "state": "finished", "group": "g", "jobType": "train", "sweepName": None,
        "tags": ["a", "b"], "notes": None, "commit": commit, "readOnly": False,
        "createdAt": f"2026-01-{1 + index % 28:02}T00:00:00", "heartbeatAt": "2026-02-01T00:00:00Z",
        "historyLineCount": 1000, "historyKeys": {"lastStep": 999},
        "config": json.dumps({**config, "model": {"value": "resnet"}}),
        "summaryMetrics": json.dumps(summary),
        "user": {"name": "Ann", "username": "ann"},
    }  # fmt: skip


def make(base: str, runs: int) -> Answers:
    """Pages of any size are cut from rendered edges."""
    edges = [json.dumps({"node": node(i), "cursor": str(i + 1)}).encode() for i in range(runs)]

    def page(variables: dict[str, Any]) -> bytes:
        start = int(variables["cursor"] or 0)
        stop = min(start + variables["perPage"], runs)
        info = json.dumps({"endCursor": str(stop), "hasNextPage": stop < runs}).encode()
        head = b'{"data": {"project": {"runCount": %d, "runs": {"edges": [' % runs
        return head + b",".join(edges[start:stop]) + b'], "pageInfo": ' + info + b"}}}}"

    return Answers({"Runs": page})


def ours(url: str) -> int:
    """Every run, in the canonical schema."""
    with Api({"base_url": url}, api_key=API_KEY) as api:
        return int(api.runs("ann/trials").to_arrow().num_rows)


def limit(url: str) -> int:
    """The same bytes, parsed."""
    cursor, count = None, 0
    with requests.Session() as session:
        while True:
            variables = {"cursor": cursor, "perPage": 1000, "filters": "{}", "order": "-created_at"}
            body = {"operationName": "Runs", "query": RUNS, "variables": variables}
            answer = session.post(url + "/graphql", json=body, auth=("api", API_KEY)).content
            runs = json.loads(answer)["data"]["project"]["runs"]
            for edge in runs["edges"]:
                json.loads(edge["node"]["config"])
                json.loads(edge["node"]["summaryMetrics"])
            count += len(runs["edges"])
            cursor = runs["pageInfo"]["endCursor"]
            if not runs["pageInfo"]["hasNextPage"]:
                return count


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--repetitions", type=int, default=5)
    chosen = parser.parse_args()
    with byte_server(make, chosen.runs) as server:
        assert ours(server.url) == limit(server.url) == chosen.runs
        requests.get(server.url + "/counts")
        ours(server.url)
        asked = sum(requests.get(server.url + "/counts").json().values())
        with Api({"base_url": server.url}, api_key=API_KEY) as api:
            assert sum(1 for _ in api.runs("ann/trials")) == chosen.runs
        grown = sum(requests.get(server.url + "/counts").json().values())
        print(f"listing: {asked} requests to Arrow, {grown} by iteration from 50 a page")
        for latency_s in (0.0, 0.03):
            server.set_latency(latency_s)
            name = f"listing, {chosen.runs:,} runs, {latency_s * 1000:.0f} ms"
            compare(name, lambda: ours(server.url), lambda: limit(server.url), chosen.repetitions)


if __name__ == "__main__":
    main()
