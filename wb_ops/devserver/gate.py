"""The door of both origins: reads the request, strikes faults, logs what was answered."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from wb_ops.devserver.backend import Backend
from wb_ops.devserver.execution import operation_name
from wb_ops.devserver.faults import Fault, Responder
from wb_ops.devserver.requestlog import Origin, RequestRecord

CONTROL_PREFIX = "/_dev"
TRANSPORT_KEY = "wb_ops.transport"
REQUEST_KEY = "wb_ops.request"


@dataclass(slots=True)
class ParsedRequest:
    """The body of a request and, on ``/graphql``, what it asks for."""

    body: bytes
    document: str = ""
    variables: Mapping[str, object] = field(default_factory=dict)
    operation: str | None = None
    quirks: frozenset[str] = frozenset()
    is_malformed: bool = False


@dataclass(slots=True)
class _Captured:
    """An answer that is held back until it is known in full."""

    status: int = 0
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytearray = field(default_factory=bytearray)

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = list(message["headers"])
        elif message["type"] == "http.response.body":
            self.body += message.get("body", b"")


class Gate:
    """ASGI middleware in front of one origin's application."""

    def __init__(self, app: ASGIApp, backend: Backend, origin: Origin) -> None:
        self._app = app
        self._backend = backend
        self._origin: Origin = origin

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; control routes pass untouched and unlogged."""
        if scope["type"] != "http" or scope["path"].startswith(CONTROL_PREFIX):
            await self._app(scope, receive, send)
            return
        request = _parse(scope, await _read_body(receive))
        scope[REQUEST_KEY] = request
        fault = self._backend.faults.take(self._facts(scope, request))
        answer = _Answer(self._backend, self._origin, scope, request, send)
        if fault is None:
            await self._app(scope, _replay(request.body, receive), answer.send)
        else:
            await self._strike(fault, scope, request, answer, receive)

    def _facts(self, scope: Scope, request: ParsedRequest) -> dict[str, str | None]:
        return {
            "operation": request.operation,
            "path": scope["path"],
            "method": scope["method"],
            "origin": self._origin,
            "document": request.document,
        }

    async def _strike(
        self,
        fault: Fault,
        scope: Scope,
        request: ParsedRequest,
        answer: _Answer,
        receive: Receive,
    ) -> None:
        respond = fault.respond
        if fault.action is not None:
            await run_in_threadpool(fault.action)
        if respond.delay_s:
            await asyncio.sleep(respond.delay_s)
        request.quirks = respond.quirks
        if respond.ending == "reset":
            answer.log(0)
            await _drop(scope, receive, with_reset=True)
            return
        captured = await self._make_answer(respond, scope, request, receive)
        if respond.ending == "lost":
            answer.log(0)
            await _drop(scope, receive, with_reset=False)
        else:
            await _send_captured(respond, captured, answer)

    async def _make_answer(
        self, respond: Responder, scope: Scope, request: ParsedRequest, receive: Receive
    ) -> _Captured:
        captured = _Captured()
        if respond.status is None:
            await self._app(scope, _replay(request.body, receive), captured.send)
        else:
            captured.status = respond.status
            captured.body += respond.wire_body
            captured.headers = [(b"content-type", b"application/json")]
        given = {name.lower().encode(): value.encode() for name, value in respond.headers.items()}
        kept = [(name, value) for name, value in captured.headers if name not in given]
        captured.headers = [*kept, *given.items()]
        return captured


class _Answer:
    """Sends an answer and logs it before its last byte, so that a client finds it logged."""

    def __init__(
        self, backend: Backend, origin: Origin, scope: Scope, request: ParsedRequest, send: Send
    ) -> None:
        self._backend = backend
        self._origin: Origin = origin
        self._scope = scope
        self._request = request
        self._send = send
        self._started = time.time()
        self._status = 0
        self._bytes = 0

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
        elif message["type"] == "http.response.body":
            self._bytes += len(message.get("body", b""))
            if not message.get("more_body", False):
                self.log(self._status)
        await self._send(message)

    def log(self, status: int) -> None:
        headers = {name.decode("latin-1"): value for name, value in self._scope["headers"]}
        authorization = headers.pop("authorization", None)
        self._backend.requests.append(
            RequestRecord(
                time=self._started,
                origin=self._origin,
                method=self._scope["method"],
                path=self._scope["path"],
                query_string=self._scope["query_string"].decode("latin-1"),
                operation=self._request.operation,
                variables=self._request.variables,
                document=self._request.document,
                header_names=[name.decode("latin-1") for name, _ in self._scope["headers"]],
                headers={name: value.decode("latin-1") for name, value in headers.items()},
                authorization=None if authorization is None else authorization.decode("latin-1"),
                status=status,
                duration_s=time.time() - self._started,
                answer_bytes=self._bytes,
            )
        )


async def _send_captured(respond: Responder, captured: _Captured, answer: _Answer) -> None:
    body = bytes(captured.body)
    if respond.keep_bytes is not None:
        body = body[: respond.keep_bytes]
    headers = [pair for pair in captured.headers if pair[0] != b"content-length"]
    headers.append((b"content-length", str(len(body)).encode()))
    await answer.send(
        {"type": "http.response.start", "status": captured.status, "headers": headers}
    )
    if respond.ending == "cut":
        # The application ends here although bytes are missing: uvicorn closes the connection.
        answer.log(captured.status)
        half = body[: len(body) // 2]
        await answer.send({"type": "http.response.body", "body": half, "more_body": True})
    else:
        await answer.send({"type": "http.response.body", "body": body})


async def _drop(scope: Scope, receive: Receive, *, with_reset: bool) -> None:
    transport = cast(asyncio.Transport, scope[TRANSPORT_KEY])
    if with_reset:
        # Closing a socket that lingers for zero seconds sends RST instead of FIN.
        connection = transport.get_extra_info("socket")
        linger = struct.pack("ii", 1, 0)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    transport.abort()
    while (await receive())["type"] != "http.disconnect":
        continue


def _parse(scope: Scope, body: bytes) -> ParsedRequest:
    if scope["path"] != "/graphql" or scope["method"] != "POST":
        return ParsedRequest(body)
    try:
        payload = json.loads(body)
    except ValueError:
        payload = None
    if not isinstance(payload, dict) or not isinstance(payload.get("query"), str):
        return ParsedRequest(body, is_malformed=True)
    name = payload.get("operationName") or None
    document = payload["query"]
    operation = operation_name(document, name)
    return ParsedRequest(body, document, payload.get("variables") or {}, operation)


async def _read_body(receive: Receive) -> bytes:
    chunks = []
    while True:
        message = await receive()
        if message["type"] != "http.request":
            break
        chunks.append(message.get("body", b""))
        if not message.get("more_body", False):
            break
    return b"".join(chunks)


def _replay(body: bytes, receive: Receive) -> Receive:
    """The body once, then what the connection says: streams wait there for a disconnect."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return messages.pop() if messages else await receive()

    return replay
