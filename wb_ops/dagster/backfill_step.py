"""One backfill inside a step: plan, execute, report; or show the plan."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import dagster as dg

from wb_ops.dagster.holdings import read_runs
from wb_ops.dagster.metadata import (
    Metadata,
    Meter,
    backfill_metadata,
    dry_run_metadata,
    project_url,
)
from wb_ops.dagster.partitions import Slice
from wb_ops.dagster.resource import WandbResource, WarehouseResource
from wb_ops.dagster.retries import facts_of, stop_run_retries, wandb_retries
from wb_ops.errors import CommError

if TYPE_CHECKING:
    from wb_ops.backfill import BackfillPlan, BackfillReport, BackfillRequest, PlannedValue
    from wb_ops.client.api import Api
    from wb_ops.warehouse import Warehouse

Reported: TypeAlias = "dg.MaterializeResult[None] | dg.AssetObservation"
# partition key -> the runs of it that the warehouse holds
Parts: TypeAlias = Mapping[str, Sequence[Mapping[str, Any]]]


@dataclass(frozen=True, slots=True)
class BackfillStep:
    """What a step writes back, before its partitions narrow it."""

    request: BackfillRequest
    spec: dg.AssetSpec

    def execute(
        self,
        context: dg.AssetExecutionContext,
        wandb: WandbResource,
        warehouse: WarehouseResource,
        *,
        dry_run: bool,
    ) -> Iterator[Reported]:
        """Plan and write; with `dry_run` only show the plan, as an observation.

        Raises:
            dagster.Failure, dagster.RetryRequested: as `wandb_retries` translates.
        """
        from wb_ops.backfill import plan_backfill

        with wandb_retries(context):
            part = Slice.of(context, self.spec.partitions_def)
            api, store = wandb.get_api(), warehouse.get_warehouse()
            meter, page = Meter.start(api), project_url(api, self.request.owner)
            plan = plan_backfill(narrowed(self.request, part), api, store)
            parts: Parts = {}
            if part is not None:
                parts = part.split(read_runs(store, self.request.dataset_name, part))
                plan = inside(plan, parts)
            context.log.info(f"{plan.backfill_id}: {plan.counts or 'nothing to write'}")
            if dry_run:
                yield from self._observe(parts, dry_run_metadata(plan, page))
                return
            report = _written(context, plan, api, store, meter, page)
            if part is not None:
                self._describe_partitions(context, part, parts, report)
            shown = {**backfill_metadata(report, page), **meter.used()}
            yield dg.MaterializeResult(asset_key=self.spec.key, metadata=shown)

    def _observe(self, parts: Parts, shown: Metadata) -> Iterator[Reported]:
        for partition in parts or (None,):
            yield dg.AssetObservation(self.spec.key, partition=partition, metadata=shown)

    def _describe_partitions(
        self, context: dg.AssetExecutionContext, part: Slice, parts: Parts, report: BackfillReport
    ) -> None:
        """Describe each partition by itself: what a result carries is copied to all of them."""
        written = Counter(value.run_id for value in report.written)
        for key, runs in parts.items():
            # Of a day the runs are known from the warehouse only; the key of a run is its id.
            run_ids = [run["run_id"] for run in runs] if part.windows else [key]
            values = sum(written[run_id] for run_id in run_ids)
            metadata = {"wandb/partition_runs": len(runs), "wandb/partition_values_written": values}
            context.add_asset_metadata(metadata, asset_key=self.spec.key, partition_key=key)


def narrowed(request: BackfillRequest, part: Slice | None) -> BackfillRequest:
    """Return the request for the runs of these partitions only."""
    if part is None:
        return request
    from wb_ops.client.filters.builder import all_of

    return replace(request, filters=all_of(request.filters, part.filters))


def inside(plan: BackfillPlan, parts: Parts) -> BackfillPlan:
    """Leave out what SQL or a file says of the runs of other partitions: they are not skipped.

    Those are outside the filters, and so are runs of these partitions that the request's own
    filters leave out, or that are deleted: of these, the ones that the warehouse holds are shown.
    """
    from wb_ops.backfill.policy import OUTSIDE

    held = {run["run_id"] for runs in parts.values() for run in runs}
    kept = (value for value in plan.values if value.run_id in held or value.reason != OUTSIDE)
    return replace(plan, values=tuple(kept))


def _written(
    context: dg.AssetExecutionContext,
    plan: BackfillPlan,
    api: Api,
    store: Warehouse,
    meter: Meter,
    page: str,
) -> BackfillReport:
    """Carry out the plan.

    Raises:
        dagster.Failure: W&B refuses some of the values, and trying again would not help.
        CommError: by the table in `errors`.
    """
    from wb_ops.backfill import execute_backfill

    try:
        report = execute_backfill(plan, api, store)
    except CommError as error:
        if error.report is None or not error.report.failed or error.advice.retryable:
            raise
        shown = {**backfill_metadata(error.report, page), **meter.used()}
        shown["wandb/values_not_sent"] = len(error.report.not_sent)
        raise _refused(context, error, shown) from error
    context.log.info(str(report))
    if report.conflicts:
        context.log.warning(f"{len(report.conflicts)} values changed since the plan")
    return report


def _refused(context: dg.AssetExecutionContext, error: CommError, shown: Metadata) -> dg.Failure:
    """Return the failure of a backfill some of whose values W&B refuses.

    Nothing tries them again by itself: the next plan does.
    """
    refused: Sequence[PlannedValue] = error.report.failed
    stop_run_retries(context)
    some = ", ".join(f"{value.run_id}.{value.key}" for value in refused[:5])
    return dg.Failure(
        f"W&B refused {len(refused)} values ({some}); {error.report.others}. The journal has "
        "the reasons; the next materialization tries them again.",
        {**facts_of(error), **shown},
        allow_retries=False,
    )
