"""Values computed per run and written back into W&B, as an asset."""

# No postponed annotations here: Dagster reads that of `config` as it stands, not resolved.

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field

from wb_ops.dagster.assets import op_name, table_spec
from wb_ops.dagster.metadata import (
    Metadata,
    Meter,
    backfill_metadata,
    dry_run_metadata,
    project_url,
)
from wb_ops.dagster.resource import WandbResource, WarehouseResource
from wb_ops.dagster.retries import DEFAULT_RETRY_POLICY, stop_run_retries, wandb_retries
from wb_ops.dagster.translator import WandbTranslator
from wb_ops.errors import CommError

if TYPE_CHECKING:
    from wb_ops.backfill import PlannedValue
    from wb_ops.backfill.request import Compute, Policy


class WandbBackfillConfig(dg.Config):
    """What can be chosen for one launch."""

    dry_run: bool = Field(
        default=False, description="Show the plan as an observation of the asset; write nothing."
    )


def build_wandb_backfill_asset(
    *,
    name: str,
    entity: str,
    project: str,
    sql: str | None = None,
    compute: "Compute | None" = None,
    dataset: str | None = None,
    filters: Mapping[str, Any] | None = None,
    policy: "Policy" = "overwrite",
    include_running: bool = False,
    translator: WandbTranslator | None = None,
    retry_policy: dg.RetryPolicy | None = DEFAULT_RETRY_POLICY,
    pool: str | None = "wandb_write",
) -> dg.AssetsDefinition:
    """Return an asset that computes values per run and writes them into the run summaries.

    It is downstream of `runs` and `history` of the same project and translator, and needs the
    resources `wandb` and `warehouse`. Each materialization plans anew, so one that was killed
    is continued, and values that are already there are not written again.

    Args:
        name: the asset's name; the op is called `<dataset>_<name>`.
        entity, project, sql, compute, dataset, filters, policy, include_running: as
            BackfillRequest; exactly one of `sql` and `compute`.
        translator, retry_policy, pool: as in `build_wandb_assets`.

    Raises:
        InvalidRequest: an argument is wrong, when the definitions load (retry: never).
    """
    from wb_ops.backfill import BackfillRequest

    request = BackfillRequest(
        entity=entity,
        project=project,
        sql=sql,
        compute=compute,
        dataset=dataset,
        filters=filters or {},
        policy=policy,
        include_running=include_running,
    )
    place = (translator, entity, project, request.dataset_name)
    spec = table_spec(*place, name, "backfill").replace_attributes(
        deps=[table_spec(*place, table).key for table in ("runs", "history")], skippable=True
    )

    @dg.multi_asset(
        name=op_name(f"{request.dataset_name}_{name}"),
        specs=[spec],
        retry_policy=retry_policy,
        pool=pool,
    )
    def backfill(
        context: dg.AssetExecutionContext,
        config: WandbBackfillConfig,
        wandb: WandbResource,
        warehouse: WarehouseResource,
    ) -> Iterator[dg.MaterializeResult[None] | dg.AssetObservation]:
        from wb_ops.backfill import execute_backfill, plan_backfill

        with wandb_retries(context):
            api, store = wandb.get_api(), warehouse.get_warehouse()
            meter, page = Meter.start(api), project_url(api, request.owner)
            plan = plan_backfill(request, api, store)
            context.log.info(f"{plan.backfill_id}: {plan.counts or 'nothing to write'}")
            if config.dry_run:
                yield dg.AssetObservation(spec.key, metadata=dry_run_metadata(plan, page))
                return
            try:
                report = execute_backfill(plan, api, store)
            except CommError as error:
                if error.report is None or not error.report.failed:
                    raise
                shown = {**backfill_metadata(error.report, page), **meter.used()}
                raise _refused(context, error.report.failed, shown) from error
            context.log.info(str(report))
            if report.conflicts:
                context.log.warning(f"{len(report.conflicts)} values changed since the plan")
            shown = {**backfill_metadata(report, page), **meter.used()}
            yield dg.MaterializeResult(asset_key=spec.key, metadata=shown)

    return backfill


def _refused(
    context: dg.AssetExecutionContext, refused: "Sequence[PlannedValue]", shown: Metadata
) -> dg.Failure:
    """Return the failure of a backfill some of whose values W&B refuses; the others are written.

    Nothing tries them again by itself: the next plan does.
    """
    stop_run_retries(context)
    some = ", ".join(f"{value.run_id}.{value.key}" for value in refused[:5])
    return dg.Failure(
        f"W&B refused {len(refused)} values ({some}); all others are written. The journal has "
        "the reasons; the next materialization tries them again.",
        shown,
        allow_retries=False,
    )
