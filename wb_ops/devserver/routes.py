"""The API origin: GraphQL, ``file_stream``, run files and the exchange of tokens."""

from __future__ import annotations

import json
import mimetypes
import sqlite3
from collections.abc import Callable
from urllib.parse import parse_qs

import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from wb_ops.devserver import control
from wb_ops.devserver.auth import ApiKey
from wb_ops.devserver.backend import Backend, RequestContext
from wb_ops.devserver.errors import StatusError, not_found, not_logged_in, permission_denied
from wb_ops.devserver.execution import execute_document
from wb_ops.devserver.gate import REQUEST_KEY, Gate, ParsedRequest
from wb_ops.devserver.ingest import ingest
from wb_ops.devserver.seeding import Seeder

Endpoint = Callable[[Backend, Request], Response]


def api_app(backend: Backend, seeder: Seeder) -> ASGIApp:
    """The application behind the base URL."""
    routes = [
        _route(backend, "/graphql", _graphql, "POST"),
        _route(backend, "/oidc/token", _token, "POST"),
        _route(backend, "/files/{entity}/{project}/{run}/file_stream", _file_stream, "POST"),
        _route(backend, "/files/{entity}/{project}/{run}/{name:path}", _download, "GET"),
        *control.routes(backend, seeder),
    ]
    return Gate(Starlette(routes=routes), backend, "api")


def _route(backend: Backend, path: str, endpoint: Endpoint, method: str) -> Route:
    def answer(request: Request) -> Response:
        try:
            return endpoint(backend, request)
        except StatusError as error:
            return JSONResponse(error.to_json(), error.status)

    return Route(path, answer, methods=[method])


def _graphql(backend: Backend, request: Request) -> Response:
    has_credential, account = backend.accounts.find(request.headers.get("authorization"))
    if not has_credential:
        raise not_logged_in()
    parsed: ParsedRequest = request.scope[REQUEST_KEY]
    if parsed.is_malformed:
        raise StatusError(400, "the body is no GraphQL request")
    context = RequestContext(backend, account, parsed.quirks)
    status, body = execute_document(context, parsed.document, parsed.variables, parsed.operation)
    return Response(_strict_json(body), status, media_type="application/json")


def _strict_json(body: dict[str, object]) -> bytes:
    """Outside the JSONString values W&B's answers are strict JSON."""
    try:
        return orjson.dumps(body, default=lambda part: orjson.Fragment(part.text))
    except TypeError:  # an integer beyond 64 bits
        text = json.dumps(body, allow_nan=False, default=lambda part: orjson.loads(part.text))
        return text.encode()


def _token(backend: Backend, request: Request) -> Response:
    """A JWT for an access token, in the form of RFC 7523."""
    parsed: ParsedRequest = request.scope[REQUEST_KEY]
    form = {name: values[-1] for name, values in parse_qs(parsed.body.decode()).items()}
    if form.get("grant_type") != "urn:ietf:params:oauth:grant-type:jwt-bearer":
        raise StatusError(400, "unsupported grant_type")
    given = backend.accounts.exchange(form.get("assertion", ""))
    if given is None:
        raise StatusError(401, "the identity token is not accepted")
    return JSONResponse({"access_token": given[0], "expires_in": given[1]})


def _file_stream(backend: Backend, request: Request) -> Response:
    if _account(backend, request).read_only:
        raise permission_denied()
    parsed: ParsedRequest = request.scope[REQUEST_KEY]
    try:
        message = json.loads(parsed.body or b"{}")
    except ValueError as error:
        raise StatusError(400, "the body is no JSON") from error
    return JSONResponse(ingest(backend, _run(backend, request), message))


def _download(backend: Backend, request: Request) -> Response:
    _account(backend, request)
    name = request.path_params["name"]
    content = backend.files.read(_run(backend, request)["pk"], name)
    if content is None:
        raise not_found("file")
    return Response(content, media_type=mimetypes.guess_type(name)[0])


def _account(backend: Backend, request: Request) -> ApiKey:
    has_credential, account = backend.accounts.find(request.headers.get("authorization"))
    if not has_credential or account is None:
        raise not_logged_in()
    return account


def _run(backend: Backend, request: Request) -> sqlite3.Row:
    path = (request.path_params[part] for part in ("entity", "project", "run"))
    run = backend.store.find_run(*path)
    if run is None:
        raise not_found("run")
    return run
