"""Sockets on 127.0.0.1, and the threads that serve an application on them."""

from __future__ import annotations

import asyncio
import socket
import threading

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from wb_ops.devserver.gate import TRANSPORT_KEY

HOST = "127.0.0.1"
_START_TIMEOUT_S = 30.0


class _DroppableProtocol(H11Protocol):
    """Hands the connection to the application, which may have to drop it."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]  # uvicorn's own arguments
        inner: ASGIApp = self.app

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            scope[TRANSPORT_KEY] = self.transport
            await inner(scope, receive, send)

        self.app = app


class Host:
    """One origin: a bound socket and the thread that serves it."""

    def __init__(self, app: ASGIApp, bound: socket.socket) -> None:
        config = uvicorn.Config(
            app,
            loop="asyncio",
            http=_DroppableProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="critical",
            access_log=False,
            timeout_graceful_shutdown=1,
        )
        self._server = _SignalledServer(config)
        self._socket = bound
        self._thread = threading.Thread(target=self._serve, name="wb-ops-devserver", daemon=True)
        self._thread.start()
        if not self._server.is_up.wait(_START_TIMEOUT_S):
            raise RuntimeError("the dev server did not start")

    def ask_to_stop(self) -> None:
        self._server.should_exit = True

    def wait(self) -> None:
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        asyncio.run(self._server.serve(sockets=[self._socket]))


class _SignalledServer(uvicorn.Server):
    """Says when it accepts connections."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.is_up = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.is_up.set()


def bind(port: int) -> socket.socket:
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((HOST, port))
        bound.listen(512)
    except OSError:
        bound.close()
        raise
    return bound


def url_of(bound: socket.socket) -> str:
    return f"http://{HOST}:{bound.getsockname()[1]}"
