"""Airflow's state stores: a cursor that survives retries, and a watermark to look at.

Both came with Airflow 3.3. Without them a retried task begins its plan anew, which costs requests
and no correctness, and no watermark is shown beside the assets.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import Asset
from airflow.sdk.exceptions import AirflowRuntimeError

import wb_ops
from wb_ops.errors import NotFound

if TYPE_CHECKING:
    from airflow.sdk import Context

    from wb_ops.client.api import Api
    from wb_ops.export import ExportPlan, ExportRequest
    from wb_ops.warehouse import Warehouse

log = logging.getLogger("wb_ops")

PLAN_KEY = "wandb_plan_uri"
WATERMARK_KEY = "wandb_watermark"
# As plan_export: an older listing has missed too much.
CONTINUED_FOR = timedelta(hours=24)


def open_plan(
    context: Context, request: ExportRequest, api: Api, warehouse: Warehouse, staging: str
) -> ExportPlan:
    """Return the plan that an earlier try of this task instance has made, or make one.

    The listing of a killed try is continued in either case: its folder is found by the request.
    So it is where the store is away.

    Args:
        context: whose `task_state_store` remembers the plan's URI from the moment it is finished.
        request, api, warehouse, staging: as in `plan_export`.
    """
    store = context.get("task_state_store")
    if store is not None and (earlier := _earlier_plan(store, request)) is not None:
        log.info("going on with the plan of an earlier try: %s", earlier.uri)
        return earlier
    plan = wb_ops.plan_export(request, api, warehouse, folder=staging)
    if store is not None and plan.uri is not None:
        with logged("the task's state store does not have the plan, another try plans anew"):
            store.set(PLAN_KEY, plan.uri)
    return plan


def _earlier_plan(store: Any, request: ExportRequest) -> ExportPlan | None:
    plan_uri = None
    with logged("the task's state store was not asked for an earlier plan"):
        plan_uri = store.get(PLAN_KEY)
    if plan_uri is None:
        return None
    with suppress(NotFound):
        plan = wb_ops.load_plan(str(plan_uri))
        if plan.request == request and datetime.now(UTC) - plan.planned_at < CONTINUED_FOR:
            return plan
    return None


def forget_plan(context: Context) -> None:
    """Forget a plan that is carried out: a task that is cleared later plans anew."""
    if (store := context.get("task_state_store")) is None:
        return
    with logged("the task's state store still has the plan that is carried out"):
        store.delete(PLAN_KEY)


def mirror_watermark(context: Context, asset: Asset, value: Mapping[str, Any]) -> None:
    """Show how far an export came in the state store of its outlet asset.

    For people and dashboards: nothing of ours reads it, the warehouse holds the truth.
    """
    if "asset_state_store" not in context:
        return
    with logged(f"the state store of asset {asset.name} was not written"):
        context["asset_state_store"][asset].set(WATERMARK_KEY, dict(value))


@contextmanager
def logged(what: str) -> Iterator[None]:
    """Log that a store is away: no export fails for that, the warehouse has what counts."""
    try:
        yield
    except AirflowRuntimeError as error:
        log.warning("%s: %s", what, error)
