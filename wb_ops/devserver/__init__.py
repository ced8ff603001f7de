"""A W&B-compatible server for tests and the demo.

In: what the ``wandb`` SDK and plain HTTP clients send, or seeded runs. Out: GraphQL answers, files,
signed parquet exports, faults on demand. May import nothing of the rest of ``wb_ops``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wb_ops.devserver.auth import DEV_API_KEY, ApiKey
    from wb_ops.devserver.faults import Fault, Matcher, Responder
    from wb_ops.devserver.requestlog import RequestRecord
    from wb_ops.devserver.server import DevServer

__all__ = [
    "DEV_API_KEY",
    "ApiKey",
    "DevServer",
    "Fault",
    "Matcher",
    "RequestRecord",
    "Responder",
]

_HOMES = {
    "DEV_API_KEY": "auth",
    "ApiKey": "auth",
    "DevServer": "server",
    "Fault": "faults",
    "Matcher": "faults",
    "RequestRecord": "requestlog",
    "Responder": "faults",
}


def __getattr__(name: str) -> object:
    """Import a public name at first use, so that the pytest plugin costs nothing to load."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
