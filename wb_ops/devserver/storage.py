"""The storage origin: signed URLs for exports and files, as an object store serves them."""

from __future__ import annotations

import mimetypes
from collections.abc import Callable

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from wb_ops.devserver.backend import Backend
from wb_ops.devserver.gate import REQUEST_KEY, Gate, ParsedRequest

Endpoint = Callable[[Backend, Request], Response]


class _ExportResponse(FileResponse):
    chunk_size = 1 << 20


def storage_app(backend: Backend) -> ASGIApp:
    """The application of the second origin."""
    routes = [
        _route(backend, "/exports/{name:path}", _export, "read", ["GET"]),
        _route(backend, "/files/{run_pk:int}/{name:path}", _read_file, "read", ["GET"]),
        _route(backend, "/files/{run_pk:int}/{name:path}", _write_file, "write", ["PUT"]),
    ]
    return Gate(Starlette(routes=routes), backend, "storage")


def _route(backend: Backend, path: str, endpoint: Endpoint, verb: str, methods: list[str]) -> Route:
    def answer(request: Request) -> Response:
        # Two ways to sign in at once: object stores refuse that before they look at either.
        if "authorization" in request.headers:
            return _refused(400, "InvalidArgument", "Only one auth mechanism allowed.")
        refusal = backend.signer.refusal(verb, request.scope["path"], request.query_params)
        if refusal is not None:
            return _refused(403, "AccessDenied", refusal)
        return endpoint(backend, request)

    return Route(path, answer, methods=methods)


def _export(backend: Backend, request: Request) -> Response:
    path = (backend.exports.folder / request.path_params["name"]).resolve()
    if not path.is_relative_to(backend.exports.folder.resolve()) or not path.is_file():
        return _missing()
    return _ExportResponse(path, media_type="application/vnd.apache.parquet")


def _read_file(backend: Backend, request: Request) -> Response:
    name = request.path_params["name"]
    content = backend.files.read(request.path_params["run_pk"], name)
    if content is None:
        return _missing()
    return Response(content, media_type=mimetypes.guess_type(name)[0])


def _write_file(backend: Backend, request: Request) -> Response:
    parsed: ParsedRequest = request.scope[REQUEST_KEY]
    backend.files.write(request.path_params["run_pk"], request.path_params["name"], parsed.body)
    return Response()


def _missing() -> Response:
    return _refused(404, "NoSuchKey", "The specified key does not exist.")


def _refused(status: int, code: str, message: str) -> Response:
    body = f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>{message}</Message></Error>'
    return Response(body, status, media_type="application/xml")
