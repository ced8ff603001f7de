"""Control routes under ``/_dev``, for processes that hold no :class:`DevServer`. They take no key.

Source of the idea: moto keeps its control routes apart from the emulated API in the same way.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import cast

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from wb_ops.devserver.backend import Backend
from wb_ops.devserver.errors import StatusError
from wb_ops.devserver.faults import Fault, Matcher, Responder
from wb_ops.devserver.gate import CONTROL_PREFIX
from wb_ops.devserver.seeding import RunEdit, RunSeed, Seeder
from wb_ops.devserver.sweeps import SweepSeed, seed_sweep

Body = dict[str, object]
Endpoint = Callable[[Backend, Seeder, Request, Body], object]
_RUN = "/runs/{entity}/{project}/{run_id}"


def routes(backend: Backend, seeder: Seeder) -> list[Route]:
    """All control routes."""
    table: list[tuple[str, str, Endpoint]] = [
        ("GET", "/info", _info),
        ("POST", "/reset", _reset),
        ("GET", "/requests", _list_requests),
        ("DELETE", "/requests", _clear_requests),
        ("GET", "/faults", _list_faults),
        ("POST", "/faults", _add_fault),
        ("DELETE", "/faults", _clear_faults),
        ("POST", "/seed", _seed),
        ("POST", "/sweeps", _seed_sweeps),
        ("PATCH", _RUN, _edit_run),
        ("DELETE", _RUN, _delete_run),
        ("DELETE", "/projects/{entity}/{project}", _delete_project),
        ("POST", f"{_RUN}/history", _append_history),
        ("POST", f"{_RUN}/finish", _finish_run),
    ]
    return [_route(backend, seeder, *entry) for entry in table]


def _route(backend: Backend, seeder: Seeder, method: str, path: str, endpoint: Endpoint) -> Route:
    async def answer(request: Request) -> Response:
        raw = await request.body()
        try:
            result = endpoint(backend, seeder, request, json.loads(raw) if raw else {})
        except StatusError as error:
            return JSONResponse(error.to_json(), error.status)
        except (KeyError, TypeError, ValueError) as error:
            return JSONResponse({"errors": [{"message": str(error)}]}, 400)
        return JSONResponse(result)

    return Route(CONTROL_PREFIX + path, answer, methods=[method])


def fault_from_json(document: Mapping[str, object]) -> Fault:
    """Read ``{"match": {…}, "respond": {…}, "times": 1}``; ``times`` null means for ever."""
    match = cast(dict[str, str | None], document.get("match", {}))
    respond = dict(cast(Mapping[str, object], document.get("respond", {})))
    if isinstance(respond.get("body"), dict | list):
        respond["body"] = json.dumps(respond["body"])
    respond["quirks"] = frozenset(cast(list[str], respond.get("quirks", [])))
    times = cast("int | None", document.get("times", 1))
    return Fault(Matcher(**match), Responder(**respond), times)  # type: ignore[arg-type]  # the dataclasses refuse unknown names


def _path(request: Request) -> tuple[str, str, str]:
    parts = request.path_params
    return parts["entity"], parts["project"], parts["run_id"]


def _info(backend: Backend, _seeder: Seeder, _request: Request, _body: Body) -> object:
    keys = [
        {"key": key, "username": account.username, "read_only": account.read_only}
        for key, account in backend.accounts.api_keys.items()
    ]
    return {"url": backend.url, "storage_url": backend.storage_url, "api_keys": keys}


def _reset(backend: Backend, _seeder: Seeder, _request: Request, _body: Body) -> object:
    backend.reset()
    return {}


def _list_requests(backend: Backend, _seeder: Seeder, _request: Request, _body: Body) -> object:
    return [record.to_json() for record in backend.requests]


def _clear_requests(backend: Backend, _seeder: Seeder, _request: Request, _body: Body) -> object:
    backend.requests.clear()
    return {}


def _list_faults(backend: Backend, _seeder: Seeder, _request: Request, _body: Body) -> object:
    return [fault.to_json() for fault in backend.faults.list_faults()]


def _add_fault(backend: Backend, _seeder: Seeder, _request: Request, body: Body) -> object:
    backend.faults.add(fault_from_json(body))
    return {}


def _clear_faults(backend: Backend, _seeder: Seeder, _request: Request, _body: Body) -> object:
    backend.faults.clear()
    return {}


def _seed(_backend: Backend, seeder: Seeder, _request: Request, body: Body) -> object:
    return {"ids": seeder.seed_runs(cast(list[RunSeed], body["runs"]))}


def _seed_sweeps(backend: Backend, _seeder: Seeder, _request: Request, body: Body) -> object:
    for seed in cast(list[SweepSeed], body["sweeps"]):
        seed_sweep(backend, seed)
    return {}


def _edit_run(_backend: Backend, seeder: Seeder, request: Request, body: Body) -> object:
    seeder.edit_run(*_path(request), cast(RunEdit, body))
    return {}


def _delete_run(_backend: Backend, seeder: Seeder, request: Request, _body: Body) -> object:
    seeder.delete_run(*_path(request))
    return {}


def _delete_project(backend: Backend, _seeder: Seeder, request: Request, _body: Body) -> object:
    backend.store.delete_project(request.path_params["entity"], request.path_params["project"])
    return {}


def _append_history(_backend: Backend, seeder: Seeder, request: Request, body: Body) -> object:
    seeder.append_history(*_path(request), cast(list[str], body["rows"]))
    return {}


def _finish_run(_backend: Backend, seeder: Seeder, request: Request, body: Body) -> object:
    seeder.finish_run(*_path(request), int(cast(int, body.get("exit_code", 0))))
    return {}
