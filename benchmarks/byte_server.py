"""A server of pre-rendered answers, in a process of its own: its time is not what is measured.

In: a function that makes the answers (by GraphQL operation, or by path for GET) once. Out: the
same bytes for every request, after `latency_s`. Requests are counted.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

# Given the variables of an operation, or the path of a GET: the body.
Answer = Callable[[Any], bytes]
API_KEY = "b" * 40


@dataclass(frozen=True)
class Answers:
    """What is answered: GraphQL by operation name, downloads by path."""

    operations: dict[str, Answer]
    files: Answer | None = None


class _Connection(asyncio.Protocol):
    def __init__(self, answers: Answers, latency_s: Any, counts: Counter[str]) -> None:
        self.answers, self.latency_s, self.counts = answers, latency_s, counts
        self.buffer = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            head = bytes(self.buffer[:end])
            length = re.search(rb"(?i)content-length: (\d+)", head)
            total = end + 4 + (int(length[1]) if length else 0)
            if len(self.buffer) < total:
                return
            body = bytes(self.buffer[end + 4 : total])
            del self.buffer[:total]
            answer = self.answer(head, body)
            if self.latency_s.value:
                asyncio.get_running_loop().call_later(self.latency_s.value, self.send, answer)
            else:
                self.send(answer)

    def answer(self, head: bytes, body: bytes) -> bytes:
        method, path, _ = head.split(b"\r\n", 1)[0].decode().split(" ")
        if path == "/counts":
            counted, _ = json.dumps(self.counts).encode(), self.counts.clear()
            return _ok(counted)
        if method == "GET" and self.answers.files is not None:
            self.counts["download"] += 1
            return _ok(self.answers.files(path), "application/octet-stream")
        asked = json.loads(body)
        name = (
            asked.get("operationName") or re.search(r"(?:query|mutation) (\w+)", asked["query"])[1]
        )
        self.counts[name] += 1
        return _ok(self.answers.operations[name](asked.get("variables") or {}))

    def send(self, answer: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(answer)


def _ok(body: bytes, kind: str = "application/json") -> bytes:
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def _serve(
    make: Callable[..., Answers], arguments: tuple[Any, ...], port: Any, latency: Any
) -> None:
    async def run() -> None:
        loop = asyncio.get_running_loop()
        counts: Counter[str] = Counter()
        socket = await loop.create_server(
            lambda: _Connection(answers, latency, counts), "127.0.0.1", 0
        )
        base = f"http://127.0.0.1:{socket.sockets[0].getsockname()[1]}"
        answers = make(base, *arguments)
        port.send(base)
        await socket.serve_forever()

    asyncio.run(run())


@dataclass
class ByteServer:
    """A running server; `latency_s` can be changed while it runs."""

    url: str
    _latency: Any

    def set_latency(self, seconds: float) -> None:
        """Delay every answer from now on."""
        self._latency.value = seconds


@contextmanager
def byte_server(make: Callable[..., Answers], *arguments: Any) -> Iterator[ByteServer]:
    """Start `make(base_url, *arguments)` in a process of its own."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe()
    latency = context.Value("d", 0.0, lock=False)
    process = context.Process(target=_serve, args=(make, arguments, sender, latency), daemon=True)
    process.start()
    try:
        yield ByteServer(receiver.recv(), latency)
    finally:
        process.terminate()
        process.join(30)
