"""Values computed per run and written back into W&B, as an asset."""

# No postponed annotations here: Dagster reads that of `config` as it stands, not resolved.

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Unpack

import dagster as dg
from pydantic import Field

from wb_ops.dagster.assets import filled, op_name, table_spec
from wb_ops.dagster.backfill_step import BackfillStep, Reported
from wb_ops.dagster.options import WandbBackfillOptions, for_request, refuse_unknown
from wb_ops.dagster.partitions import backfill_policy_of
from wb_ops.dagster.resource import WandbResource, WarehouseResource, both_or_neither
from wb_ops.dagster.retries import DEFAULT_RETRY_POLICY

if TYPE_CHECKING:
    from wb_ops.backfill import BackfillRequest


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
    wandb: WandbResource | None = None,
    warehouse: WarehouseResource | None = None,
    **options: Unpack[WandbBackfillOptions],
) -> dg.AssetsDefinition:
    """Return an asset that computes values per run and writes them into the runs.

    It is downstream of `runs` and `history` of the same project and translator. Each
    materialization plans anew, so one that was killed is continued, and values that are already
    there are not written again. What a run of W&B had before is in the journal of the warehouse.

    Args:
        name: the asset's name; the op is called `<dataset>_<name>`.
        entity, project: the W&B project.
        wandb, warehouse: resources of this asset alone; by default those of the location, of the
            same names.
        options: see `WandbBackfillOptions`.

    Raises:
        InvalidRequest: an argument is wrong, when the definitions load (retry: never).

    Example:
        >>> from wb_ops.backfill import best
        >>> best_val_acc = build_wandb_backfill_asset(
        ...     name="best_val_acc", entity="acme", project="nano-gpt", compute=best("val_acc")
        ... )
    """
    from wb_ops.backfill import BackfillRequest

    refuse_unknown(options, WandbBackfillOptions)
    request = BackfillRequest(
        entity=entity, project=project, **for_request(options, BackfillRequest)
    )
    spec = _spec(name, request, options)
    decorate = dg.multi_asset(
        name=op_name(f"{request.dataset_name}_{name}"),
        specs=[spec],
        backfill_policy=options.get("backfill_policy") or backfill_policy_of([spec]),
        retry_policy=options.get("retry_policy", DEFAULT_RETRY_POLICY),
        pool=options.get("pool", "wandb_write"),
        op_tags=options.get("op_tags"),
    )
    step, own = BackfillStep(request, spec), both_or_neither(wandb, warehouse)
    return decorate(_unbound(step) if own is None else _bound(step, *own))


def _spec(name: str, request: "BackfillRequest", options: WandbBackfillOptions) -> dg.AssetSpec:
    """The translator's spec, with what it leaves open."""
    place = (options.get("translator"), request.entity, request.project, request.dataset_name)
    spec = table_spec(*place, name, "backfill")
    exported = [table_spec(*place, table).key for table in ("runs", "history")]
    after = spec.replace_attributes(deps=[*exported, *spec.deps], skippable=True)
    return filled(after, options)


def _unbound(step: BackfillStep) -> Callable[..., Iterator[Reported]]:
    """The step's body with the location's resources."""

    def body(
        context: dg.AssetExecutionContext,
        config: WandbBackfillConfig,
        wandb: WandbResource,
        warehouse: WarehouseResource,
    ) -> Iterator[Reported]:
        yield from step.execute(context, wandb, warehouse, dry_run=config.dry_run)

    return body


def _bound(
    step: BackfillStep, wandb: WandbResource, warehouse: WarehouseResource
) -> Callable[..., Iterator[Reported]]:
    """The step's body with resources of its own, which appear in no snapshot."""

    def body(context: dg.AssetExecutionContext, config: WandbBackfillConfig) -> Iterator[Reported]:
        # Environment variables in them are read here, where the step runs.
        with (
            wandb.process_config_and_initialize_cm() as access,
            warehouse.process_config_and_initialize_cm() as store,
        ):
            yield from step.execute(context, access, store, dry_run=config.dry_run)

    return body
