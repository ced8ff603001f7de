"""Airflow's state stores: a cursor that survives retries, and a watermark to look at.

Both came with Airflow 3.3. Without them a retried task begins its plan anew, which costs requests
and no correctness, and no watermark is shown beside the assets.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import suppress
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

    Args:
        context: whose `task_state_store` remembers the plan's URI from the moment it is finished.
        request, api, warehouse, staging: as in `plan_export`.
    """
    store = context.get("task_state_store")
    if store is not None and (plan_uri := store.get(PLAN_KEY)) is not None:
        with suppress(NotFound):
            plan = wb_ops.load_plan(str(plan_uri))
            is_young = datetime.now(UTC) - plan.planned_at < CONTINUED_FOR
            if plan.request == request and is_young:
                log.info("going on with the plan of an earlier try: %s", plan.uri)
                return plan
    plan = wb_ops.plan_export(request, api, warehouse, folder=staging)
    if store is not None and plan.uri is not None:
        store.set(PLAN_KEY, plan.uri)
    return plan


def forget_plan(context: Context) -> None:
    """Forget a plan that is carried out: a task that is cleared later plans anew.

    The export is committed by now, so a store that cannot be written is logged and fails no task.
    """
    if (store := context.get("task_state_store")) is None:
        return
    try:
        store.delete(PLAN_KEY)
    except AirflowRuntimeError as error:
        log.warning("the task's state store still has the plan that is carried out: %s", error)


def mirror_watermark(context: Context, asset: Asset, value: Mapping[str, Any]) -> None:
    """Show how far an export came in the state store of its outlet asset.

    For people and dashboards: nothing of ours reads it, the warehouse holds the truth. The export
    is committed by now, so a store that cannot be written is logged and fails no task.
    """
    if "asset_state_store" not in context:
        return
    try:
        context["asset_state_store"][asset].set(WATERMARK_KEY, dict(value))
    except AirflowRuntimeError as error:
        log.warning("the state store of asset %s was not written: %s", asset.name, error)
