"""Weights & Biases run data into a warehouse and back.

In:  a W&B project. Out: a warehouse that agrees with it, and summaries that agree with the
warehouse. The names below load on first use: importing wb_ops loads no pandas and no pyarrow.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from wb_ops.errors import (
    Advice,
    AdviceKind,
    AuthenticationFailed,
    CommError,
    ConnectionFailed,
    ExportIncomplete,
    IncompleteHistory,
    InvalidRequest,
    MalformedResponse,
    NotFound,
    OutcomeUnknown,
    PermissionDenied,
    RateLimited,
    RequestTimeout,
    ServerUnavailable,
    WarehouseBusy,
    WarehouseError,
    WarehouseRefused,
    WarehouseUnavailable,
    WbOpsError,
)

if TYPE_CHECKING:
    from wb_ops.backfill import (
        BackfillPlan,
        BackfillReport,
        BackfillRequest,
        execute_backfill,
        plan_backfill,
        write_backfill,
    )
    from wb_ops.client.api import Api
    from wb_ops.client.runs import Run, Runs
    from wb_ops.export import (
        ExportPlan,
        ExportReport,
        ExportRequest,
        Shard,
        ShardResult,
        commit_plan,
        execute_export,
        execute_shard,
        load_plan,
        plan_export,
    )
    from wb_ops.warehouse import Warehouse, connect

__version__ = "0.1.0"

_LAZY = {
    "Api": "wb_ops.client.api",
    "BackfillPlan": "wb_ops.backfill",
    "BackfillReport": "wb_ops.backfill",
    "BackfillRequest": "wb_ops.backfill",
    "ExportPlan": "wb_ops.export",
    "ExportReport": "wb_ops.export",
    "ExportRequest": "wb_ops.export",
    "Run": "wb_ops.client.runs",
    "Runs": "wb_ops.client.runs",
    "Shard": "wb_ops.export",
    "ShardResult": "wb_ops.export",
    "Warehouse": "wb_ops.warehouse",
    "commit_plan": "wb_ops.export",
    "connect": "wb_ops.warehouse",
    "execute_backfill": "wb_ops.backfill",
    "execute_export": "wb_ops.export",
    "execute_shard": "wb_ops.export",
    "load_plan": "wb_ops.export",
    "plan_backfill": "wb_ops.backfill",
    "plan_export": "wb_ops.export",
    "write_backfill": "wb_ops.backfill",
}

__all__ = [
    "Advice",
    "AdviceKind",
    "Api",
    "AuthenticationFailed",
    "BackfillPlan",
    "BackfillReport",
    "BackfillRequest",
    "CommError",
    "ConnectionFailed",
    "ExportIncomplete",
    "ExportPlan",
    "ExportReport",
    "ExportRequest",
    "IncompleteHistory",
    "InvalidRequest",
    "MalformedResponse",
    "NotFound",
    "OutcomeUnknown",
    "PermissionDenied",
    "RateLimited",
    "RequestTimeout",
    "Run",
    "Runs",
    "ServerUnavailable",
    "Shard",
    "ShardResult",
    "Warehouse",
    "WarehouseBusy",
    "WarehouseError",
    "WarehouseRefused",
    "WarehouseUnavailable",
    "WbOpsError",
    "commit_plan",
    "connect",
    "execute_backfill",
    "execute_export",
    "execute_shard",
    "load_plan",
    "plan_backfill",
    "plan_export",
    "write_backfill",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_LAZY[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
