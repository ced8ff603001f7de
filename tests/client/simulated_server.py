"""A small W&B of real sockets whose answers go wrong by a seed."""

from __future__ import annotations

import json
import random
import re
import socket
import struct
import threading
import time
from collections.abc import Callable
from email.utils import formatdate
from socketserver import BaseRequestHandler, ThreadingTCPServer
from typing import Any

from simulated_world import Clock, SimulatedRun, World


class Poison(Exception):
    """The page holds a run that the server cannot render."""


class Refusal(Exception):
    """The server does not take such a query; its text says why."""


def page_of(world: World, asked: dict[str, Any], *, is_light: bool) -> dict[str, Any]:
    """A page of a listing, in the order and by the cursors of this world."""
    order, size = asked["order"], min(asked["perPage"], world.longest_page)
    listed = world.listed(order, json.loads(asked["filters"]).get("name", {}).get("$in"))
    start = world.place_after(asked["cursor"], order, listed)
    chosen = listed[start : start + size]
    if not is_light and any(run.is_poison for run in chosen):
        raise Poison
    salt = "" if world.has_stable_cursors else f"~{world.requests}"
    cursors = [world.cursor_after(order, start + at, run) + salt for at, run in enumerate(chosen)]
    here = (asked["cursor"] or "start").partition("~")[0] + salt
    quirk = None if is_light else world.fault({"empty_page", "same_cursor", "null_user"})
    if quirk == "empty_page":
        # Another name of the same place, which is the same at the next empty page.
        return {"edges": [], "pageInfo": {"hasNextPage": True, "endCursor": "+" + here.strip("+")}}
    edges: list[Any] = [
        {"node": run.node(), "cursor": cursor} for run, cursor in zip(chosen, cursors, strict=True)
    ]
    if quirk == "null_user":
        edges = [None, *({**edge, "node": {**edge["node"], "user": None}} for edge in edges)]
    end = here if quirk == "same_cursor" else cursors[-1] if cursors else None
    has_next = start + len(chosen) < len(listed)
    return {"edges": edges, "pageInfo": {"hasNextPage": has_next, "endCursor": end}}


def sources_of(world: World, run: SimulatedRun | None) -> dict[str, Any] | None:
    if run is None:
        return None
    if run.is_poison:
        raise Poison
    rng = world.rng
    live = [{"_step": row["_step"]} for row in run.live_rows]
    names_live = bool(run.files) or rng.random() < 0.8
    urls = [f"{world.storage}/w{world.seed}/{run.name}/{n}" for n in range(len(run.files))]
    rng.shuffle(urls)
    as_text = rng.random() < 0.5
    exports = {
        "parquetUrls": urls,
        "liveData": [json.dumps(row) if as_text else row for row in live] if names_live else None,
    }
    return {**counters_of(world, run), "parquetHistory": exports if urls or names_live else None}


def counters_of(world: World, run: SimulatedRun) -> dict[str, Any]:
    """What the server counts; its last step may lag behind the rows."""
    last = max((row["_step"] for row in run.rows), default=-1)
    keys = {"lastStep": max(-1, last - world.rng.choice([0, 0, 3]))}
    told = world.rng.choice([keys, json.dumps(keys), None])
    return {"historyLineCount": len(run.rows), "historyKeys": told}


def rows_of(world: World, run: SimulatedRun, asked: dict[str, Any]) -> list[str]:
    """A window of rows; more than `samples` are sampled."""
    stop = asked["maxStep"] + world.is_inclusive
    inside = [
        line
        for row, line in zip(run.rows, run.lines, strict=True)
        if asked["minStep"] <= row["_step"] < stop
    ]
    samples = asked["samples"]
    if len(inside) <= samples:
        return inside
    return [inside[at * (len(inside) - 1) // (samples - 1)] for at in range(samples)]


def resolve(world: World, name: str, asked: dict[str, Any]) -> dict[str, Any]:
    """The `data` of an answer."""
    if name == "UpsertBucket":
        if written_run(world, asked).is_deleted:
            raise Refusal("Could not find run.")
        return {"run0": {"bucket": {"id": asked["id0"]}}}
    return {"project": resolve_project(world, name, asked)}


def resolve_project(world: World, name: str, asked: dict[str, Any]) -> dict[str, Any]:
    if name in ("Runs", "RunNames"):
        is_counted = world.fault({"null_count"}) is None
        count = sum(not run.is_deleted for run in world.runs) if is_counted else None
        return {"runCount": count, "runs": page_of(world, asked, is_light=name == "RunNames")}
    if name == "RunParquetHistory":
        if not world.has_parquet:
            raise Refusal('Cannot query field "parquetHistory" on type "Run".')
        keys = [key for key in asked if re.fullmatch(r"name\d*", key)]
        if len(keys) > 1 and not world.takes_many:
            raise Refusal("Invalid query: too many fields.")
        found = {key: sources_of(world, world.named(asked[key])) for key in keys}
        return {key.replace("name", "run"): answer for key, answer in found.items()}
    run = world.named(asked["name"])
    if run is None:
        return {"run": None}
    if name == "Run":
        return {"run": run.node()}
    if run.is_poison:
        raise Poison
    if name == "RunHistoryKeys":
        return {"run": counters_of(world, run)}
    assert name == "HistoryPage", name
    return {"run": {"history": rows_of(world, run, asked)}}


def is_carried_out(world: World, kind: str | None) -> bool:
    """Whether a write is carried out that is answered in this way."""
    is_certain = kind in (None, "cut", "slow", "remaining0")
    return is_certain or (kind not in REFUSALS and world.rng.random() < 0.5)


def written_run(world: World, asked: dict[str, Any]) -> SimulatedRun:
    return next(run for run in world.runs if f"id-{run.name}" == asked["id0"])


def carry_out(world: World, asked: dict[str, Any]) -> None:
    """Write what an UpsertBucket asks for: each field whole."""
    run = written_run(world, asked)
    if run.is_deleted:
        return
    world.writes += 1
    fields = {"summaryMetrics0": "summary", "config0": "config", "tags0": "tags", "notes0": "notes"}
    for variable, name in fields.items():
        if variable in asked:
            value = asked[variable]
            setattr(run, name, list(value) if name == "tags" else value)


ANYWHERE = {
    "429s", "429date", "429reset", "503after", "500", "502", "503", "504", "408", "520", "reset",
    "closed", "cut", "slow",
}  # fmt: skip
GRAPHQL = {
    "html", "internal", "limited", "deadline", "remaining0", "401", "403", "array", "empty",
}  # fmt: skip
DOWNLOADS = {"expired", "gone", "truncated", "length0"}
STATUSES = {"500", "502", "503", "504", "408", "520", "401", "403", "409"}
# A write that is answered so was refused before it was carried out; after any other trouble it
# may have been or not.
REFUSALS = {"429s", "429date", "429reset", "401", "403", "408", "409"}
BODIES = {"html": b"<html>Sign in</html>", "array": b"[]", "empty": b"{}"}
MESSAGES = {
    "internal": "internal error",
    "limited": "rate limit exceeded",
    "deadline": "context deadline exceeded",
}


def errors(message: str) -> bytes:
    return json.dumps({"data": None, "errors": [{"message": message}]}).encode()


def stored(world: World, path: str, kind: str | None) -> bytes:
    """A file of the storage, or as much of it as there is."""
    name, number = path.split("/")
    run = world.named(name)
    content = run.files[int(number)].content if run else b""
    return {"truncated": content[: len(content) // 2], "length0": b""}.get(str(kind), content)


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
        asked = json.loads(body) if rest_of_path == "graphql" else None
        with world.lock:
            world.arrive(self)
            world.change(asked and asked["operationName"])
            headers, status, answer, ending = self.answer(world, head, rest_of_path, asked)
        return self.send(status, headers, answer, ending)

    def answer(
        self, world: World, head: bytes, path: str, asked: Any
    ) -> tuple[dict[str, str], int, bytes, str]:
        is_write = asked and asked["operationName"] == "UpsertBucket"
        allowed = ANYWHERE | (DOWNLOADS if asked is None else GRAPHQL)
        kind = world.fault(allowed | ({"409"} if is_write else set()))
        if is_write and is_carried_out(world, kind):
            carry_out(world, asked["variables"])
        if kind is not None and (failure := self.failure(world, kind)):
            return failure
        ending = kind if kind in ("cut", "slow") else "complete"
        if asked is None:
            return self.part(head, stored(world, path, kind), ending)
        try:
            data = resolve(world, asked["operationName"], asked["variables"])
        except Poison:
            return {}, 500 if world.seed % 2 else 200, errors("internal error"), "complete"
        except Refusal as refusal:
            return {}, 400 if world.seed % 2 else 200, errors(str(refusal)), "complete"
        headers = {}
        if kind == "remaining0":
            headers = {"RateLimit-Remaining": "0", "RateLimit-Reset": "7"}
            world.ask_to_wait(7, self)
        return headers, 200, json.dumps({"data": data}).encode(), ending

    def failure(self, world: World, kind: str) -> tuple[dict[str, str], int, bytes, str] | None:
        """An answer that is none of the application's."""
        if kind in ("429s", "429date", "429reset", "503after"):
            return self.refuse(world, kind)
        if kind in STATUSES:
            return {}, int(kind), b"<html>no</html>", "complete"
        if kind in ("reset", "closed"):
            return {}, 200, b"", kind
        if kind in BODIES:
            return {}, 200, BODIES[kind], "complete"
        if kind in MESSAGES:
            return {}, 200, errors(MESSAGES[kind]), "complete"
        if kind in ("expired", "gone"):
            return {}, 403 if kind == "expired" else 404, b"<Error/>", "complete"
        return None

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
        # The rest never comes: it is the client who gives up and closes.
        while ending == "slow" and self.request.recv(65536):
            pass
        self.request.close()
        return False


# A schedule is over when the next one begins; a test may hold a few.
WORLDS_KEPT = 10


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
            "export", "member", "409", "null_count",
        })  # fmt: skip
        kinds = rng.sample(every, rng.randint(1, len(every)))
        rate = rng.choice([0.0, 0.05, 0.1, 0.2, 0.4])
        base_url = f"{self.urls[0]}/w{seed}"
        world = World(seed, Clock(), rng, rate, kinds, self.urls[1], base_url)
        make(world)
        self.worlds[seed] = world
        while len(self.worlds) > WORLDS_KEPT:
            del self.worlds[next(iter(self.worlds))]
        return base_url, world

    def close(self) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()
