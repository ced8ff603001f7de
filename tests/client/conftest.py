"""A small W&B of real sockets whose answers go wrong by a seed, in a time of its own."""

from __future__ import annotations

import io
import json
import random
import re
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from email.utils import formatdate
from socketserver import BaseRequestHandler, ThreadingTCPServer
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

Row = dict[str, Any]


class Clock:
    """Time in which a sleep takes no time; it never goes back."""

    def __init__(self) -> None:
        self._ahead_s = 0.0
        self._lock = threading.Lock()

    def __call__(self) -> float:
        return time.monotonic() + self._ahead_s

    def sleep(self, seconds: float) -> None:
        until = self() + seconds
        with self._lock:
            self._ahead_s = max(self._ahead_s, until - time.monotonic())


@dataclass
class SimulatedRun:
    """A run: how it may be listed, its rows, and which of them are exported."""

    name: str
    versions: list[str]
    rows: list[Row]
    files: list[bytes]
    first_live: int | None
    is_poison: bool = False
    is_deleted: bool = False
    appended: list[Row] = field(default_factory=list)


@dataclass
class Limit:
    """When the next request may come, what each connection was told, and what came since."""

    not_before: float = 0.0
    told: dict[object, float] = field(default_factory=dict)
    since: Counter[object] = field(default_factory=Counter)


@dataclass
class World:
    """What one schedule's server holds, and how it goes wrong."""

    seed: int
    clock: Clock
    rng: random.Random
    fault_rate: float
    kinds: list[str]
    storage: str = ""
    base_url: str = ""
    runs: list[SimulatedRun] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    injected: Counter[str] = field(default_factory=Counter)
    requests: int = 0
    lock: Any = field(default_factory=threading.RLock)
    limits: dict[object, Limit] = field(default_factory=dict)

    def limit(self, connection: Any) -> Limit:
        """The limit of the server (API or storage) of a connection."""
        return self.limits.setdefault(connection.server, Limit())

    def arrive(self, connection: Any) -> None:
        """Check that whoever was told to wait has waited.

        What others had sent before they could know is in flight: two requests a connection.
        """
        self.requests += 1
        limit = self.limit(connection)
        if self.clock() >= limit.not_before - 0.05:
            limit.since.clear()
            return
        limit.since[connection] += 1
        own = limit.told.get(connection, 0.0)
        if self.clock() < own - 0.05 or limit.since[connection] > 2:
            early_s = max(own, limit.not_before) - self.clock()
            self.violations.append(f"a request {early_s:.2f} s before Retry-After had passed")

    def ask_to_wait(self, seconds: float, connection: Any) -> None:
        limit = self.limit(connection)
        limit.not_before = max(limit.not_before, self.clock() + seconds)
        limit.told[connection] = self.clock() + seconds

    def fault(self, allowed: set[str]) -> str | None:
        chosen = [kind for kind in self.kinds if kind in allowed]
        if not chosen or self.rng.random() >= self.fault_rate:
            return None
        kind = self.rng.choice(chosen)
        self.injected[kind] += 1
        return kind

    def change(self) -> None:
        """Somebody else's edits, creations, deletions and new rows."""
        kind = self.fault({"edit", "create", "delete", "append"})
        alive = [run for run in self.runs if not run.is_deleted]
        run = self.rng.choice(alive) if alive else None
        if kind == "edit" and run:
            run.versions.append(f"{run.name} v{len(run.versions)}")
        elif kind == "delete" and run and len(alive) > 2:
            run.is_deleted = True
        elif kind == "append" and run and run.first_live is not None:
            row = {"_step": (run.rows[-1]["_step"] if run.rows else 0) + 1, "x": 0.5}
            run.rows.append(row)
            run.appended.append(row)
        elif kind == "create":
            name = f"new{len(self.runs)}"
            self.runs.append(SimulatedRun(name, [f"{name} v0"], [], [], None))

    def named(self, name: str) -> SimulatedRun | None:
        return next((run for run in self.runs if run.name == name and not run.is_deleted), None)


class Poison(Exception):
    """The page holds a run that the server cannot render."""


def page_of(world: World, asked: dict[str, Any], *, is_light: bool) -> dict[str, Any]:
    """A page by keyset cursors: the number of a run among all that ever were."""
    start, size = int(asked["cursor"] or 0), asked["perPage"]
    numbered = [(n, run) for n, run in enumerate(world.runs) if n >= start and not run.is_deleted]
    chosen = numbered[:size]
    if not is_light and any(run.is_poison for _, run in chosen):
        raise Poison
    quirk = None if is_light else world.fault({"empty_page", "same_cursor", "null_user"})
    if quirk == "empty_page":
        return {"edges": [], "pageInfo": {"hasNextPage": True, "endCursor": f"{start:06}"}}
    edges = [{"node": node_of(run), "cursor": str(n + 1)} for n, run in chosen]
    if quirk == "null_user":
        edges = [None, *({**edge, "node": {**edge["node"], "user": None}} for edge in edges)]
    end = str(start) if quirk == "same_cursor" else str(chosen[-1][0] + 1) if chosen else None
    return {"edges": edges, "pageInfo": {"hasNextPage": len(numbered) > size, "endCursor": end}}


def node_of(run: SimulatedRun) -> dict[str, Any]:
    return {
        "id": f"id-{run.name}", "name": run.name, "displayName": run.versions[-1],
        "state": "finished", "config": "{}", "summaryMetrics": '{"x": NaN}', "tags": None,
        "user": {"name": "Ann", "username": "ann"}, "historyLineCount": len(run.rows),
        "createdAt": "2026-01-01T00:00:00", "historyKeys": None, "surprise": [1],
    }  # fmt: skip


def sources_of(world: World, run: SimulatedRun | None) -> dict[str, Any] | None:
    if run is None:
        return None
    if run.is_poison:
        raise Poison
    live = [] if run.first_live is None else [r for r in run.rows if r["_step"] >= run.first_live]
    last = max((row["_step"] for row in run.rows), default=-1)
    urls = [f"{world.storage}/w{world.seed}/{run.name}/{n}" for n in range(len(run.files))]
    world.rng.shuffle(urls)
    return {
        "historyLineCount": len(run.rows),
        "historyKeys": world.rng.choice([{"lastStep": last}, json.dumps({"lastStep": last})]),
        "parquetHistory": {
            "parquetUrls": urls,
            "liveData": [json.dumps({"_step": row["_step"]}) for row in live],
        },
    }


def resolve(world: World, name: str, asked: dict[str, Any]) -> dict[str, Any]:
    """The `project` of an answer."""
    if name in ("Runs", "RunNames"):
        count = sum(not run.is_deleted for run in world.runs)
        return {"runCount": count, "runs": page_of(world, asked, is_light=name == "RunNames")}
    if name == "RunParquetHistory":
        keys = [key for key in asked if re.fullmatch(r"name\d*", key)]
        found = {key: sources_of(world, world.named(asked[key])) for key in keys}
        return {key.replace("name", "run"): answer for key, answer in found.items()}
    assert name == "HistoryPage", name
    run = world.named(asked["name"])
    if run is None:
        return {"run": None}
    inside = [r for r in run.rows if asked["minStep"] <= r["_step"] < asked["maxStep"]]
    return {"run": {"history": [json.dumps(row) for row in inside[: asked["samples"]]]}}


ANYWHERE = {
    "429s", "429date", "429reset", "503after", "500", "502", "503", "504", "408", "520", "reset",
    "closed", "cut", "slow",
}  # fmt: skip
GRAPHQL = {"html", "internal", "limited", "deadline", "remaining0", "401", "array", "empty"}
DOWNLOADS = {"expired", "gone", "truncated", "length0"}
STATUSES = {"500", "502", "503", "504", "408", "520", "401"}
MESSAGES = {
    "internal": "internal error",
    "limited": "rate limit exceeded",
    "deadline": "context deadline exceeded",
}


class Handler(BaseRequestHandler):
    """One connection."""

    def handle(self) -> None:
        self.buffer = b""
        try:
            while self.one():
                pass
        except OSError:
            pass

    def one(self) -> bool:
        while b"\r\n\r\n" not in self.buffer:
            if not (data := self.request.recv(65536)):
                return False
            self.buffer += data
        head, rest = self.buffer.split(b"\r\n\r\n", 1)
        length = re.search(rb"(?i)content-length: (\d+)", head)
        size = int(length[1]) if length else 0
        while len(rest) < size:
            if not (data := self.request.recv(65536)):
                return False
            rest += data
        body, self.buffer = rest[:size], rest[size:]
        path = head.split(b" ", 2)[1].decode()
        number, _, rest_of_path = path.removeprefix("/w").partition("/")
        world = self.server.worlds[int(number)]
        with world.lock:
            world.arrive(self)
            world.change()
            headers, status, answer, ending = self.answer(world, head, rest_of_path, body)
        return self.send(status, headers, answer, ending)

    def answer(
        self, world: World, head: bytes, path: str, body: bytes
    ) -> tuple[dict[str, str], int, bytes, str]:
        is_graphql = path == "graphql"
        kind = world.fault(ANYWHERE | (GRAPHQL if is_graphql else DOWNLOADS))
        if kind in ("429s", "429date", "429reset", "503after"):
            return self.refuse(world, kind)
        if kind in STATUSES:
            return {}, int(kind), b"<html>no</html>", "complete"
        if kind in ("reset", "closed"):
            return {}, 200, b"", kind
        if kind in ("html", "array", "empty"):
            told = {"html": b"<html>Sign in</html>", "array": b"[]", "empty": b"{}"}[kind]
            return {}, 200, told, "complete"
        if kind in MESSAGES:
            errors = {"data": None, "errors": [{"message": MESSAGES[kind]}]}
            return {}, 200, json.dumps(errors).encode(), "complete"
        if kind in ("expired", "gone"):
            return {}, 403 if kind == "expired" else 404, b"<Error/>", "complete"
        ending = kind if kind in ("cut", "slow") else "complete"
        if not is_graphql:
            content = world.named(path.split("/")[0])
            file = content.files[int(path.split("/")[1])] if content else b""
            file = file[: len(file) // 2] if kind == "truncated" else file
            file = b"" if kind == "length0" else file
            return self.part(head, file, ending)
        asked = json.loads(body)
        try:
            project = resolve(world, asked["operationName"], asked["variables"])
        except Poison:
            errors = {"errors": [{"message": "internal error"}]}
            status = 500 if world.seed % 2 else 200
            return {}, status, json.dumps(errors).encode(), "complete"
        headers = {}
        if kind == "remaining0":
            headers = {"RateLimit-Remaining": "0", "RateLimit-Reset": "7"}
            world.ask_to_wait(7, self)
        return headers, 200, json.dumps({"data": {"project": project}}).encode(), ending

    def part(self, head: bytes, file: bytes, ending: str) -> tuple[dict[str, str], int, bytes, str]:
        wanted = re.search(rb"(?i)range: bytes=(\d+)-(\d+)", head)
        if not wanted or not file:
            return {}, 200, file, ending
        start, stop = int(wanted[1]), min(int(wanted[2]) + 1, len(file))
        extent = {"Content-Range": f"bytes {start}-{stop - 1}/{len(file)}"}
        return extent, 206, file[start:stop], ending

    def refuse(self, world: World, kind: str) -> tuple[dict[str, str], int, bytes, str]:
        wait_s = world.rng.choice([0, 1, 3, 20, 90, 90, 400])
        name, value = "Retry-After", str(wait_s)
        if kind == "429date":
            at = int(time.time()) + wait_s
            value, wait_s = formatdate(at, usegmt=True), max(0.0, at - time.time())
        if kind == "429reset":
            name = "RateLimit-Reset"
        world.ask_to_wait(wait_s, self)
        status = 503 if kind == "503after" else 429
        return {name: value}, status, b'{"error": "slow down"}', "complete"

    def send(self, status: int, headers: dict[str, str], body: bytes, ending: str) -> bool:
        if ending == "reset":
            self.request.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if ending in ("reset", "closed"):
            self.request.close()
            return False
        lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        head = "\r\n".join(lines).encode() + b"\r\n\r\n"
        if ending == "complete":
            self.request.sendall(head + body)
            return True
        self.request.sendall(head + body[: len(body) // 2])
        if ending == "slow":
            time.sleep(SLOW_S)
        self.request.close()
        return False


SLOW_S = 0.8


class Simulation:
    """The server; each schedule has a world of its own under its own path."""

    def __init__(self) -> None:
        self.worlds: dict[int, World] = {}
        self._servers = []
        self.urls = []
        for _ in ("api", "storage"):
            server = ThreadingTCPServer(("127.0.0.1", 0), Handler)
            server.daemon_threads = True
            server.worlds = self.worlds
            threading.Thread(target=server.serve_forever, daemon=True).start()
            self._servers.append(server)
            self.urls.append(f"http://127.0.0.1:{server.server_address[1]}")

    def world(self, seed: int, make: Callable[[World], None]) -> tuple[str, World]:
        """A world for a seed; gives the base URL too."""
        rng = random.Random(seed)
        every = sorted(ANYWHERE | GRAPHQL | DOWNLOADS | {
            "empty_page", "same_cursor", "null_user", "edit", "create", "delete", "append",
        })  # fmt: skip
        kinds = rng.sample(every, rng.randint(1, len(every)))
        rate = rng.choice([0.0, 0.05, 0.1, 0.2, 0.4])
        base_url = f"{self.urls[0]}/w{seed}"
        world = World(seed, Clock(), rng, rate, kinds, self.urls[1], base_url)
        make(world)
        self.worlds[seed] = world
        return base_url, world

    def close(self) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()


def parquet_bytes(rows: list[Row], *, as_ints: bool) -> bytes:
    """Rows as an exported file."""
    type_ = pa.int64() if as_ints else pa.float64()
    steps = pa.array([row["_step"] for row in rows], pa.int64())
    file = io.BytesIO()
    table = pa.table({"_step": steps, "x": pa.array([row["x"] for row in rows], type_)})
    pq.write_table(table, file, row_group_size=7)
    return file.getvalue()


@pytest.fixture(scope="session")
def simulation() -> Iterator[Simulation]:
    simulation = Simulation()
    yield simulation
    simulation.close()


@pytest.fixture(scope="session")
def make_run() -> type[SimulatedRun]:
    return SimulatedRun


@pytest.fixture(scope="session")
def make_parquet() -> Callable[..., bytes]:
    return parquet_bytes
