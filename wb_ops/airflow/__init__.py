"""The Airflow provider: a hook, operators and a retry policy over the core.

In:  Airflow connections, arguments, contexts. Out: core requests, small results, retry decisions.
May import: airflow and the core, not cli, dagster or dlt. The names below load on first use,
because Airflow reads `provider_info` before its own configuration is ready.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wb_ops.airflow.hooks.wandb import WandbHook
    from wb_ops.airflow.links import WandbProjectLink
    from wb_ops.airflow.operators.backfill import WandbBackfillSummaryOperator
    from wb_ops.airflow.operators.export import WandbExportOperator
    from wb_ops.airflow.retry_policy import WandbRetryPolicy

__all__ = [
    "WandbBackfillSummaryOperator",
    "WandbExportOperator",
    "WandbHook",
    "WandbProjectLink",
    "WandbRetryPolicy",
]

_LAZY = {
    "WandbBackfillSummaryOperator": "wb_ops.airflow.operators.backfill",
    "WandbExportOperator": "wb_ops.airflow.operators.export",
    "WandbHook": "wb_ops.airflow.hooks.wandb",
    "WandbProjectLink": "wb_ops.airflow.links",
    "WandbRetryPolicy": "wb_ops.airflow.retry_policy",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_LAZY[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
