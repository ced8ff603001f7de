"""A W&B project's tables as one multi-asset: by a builder, or around a body of your own."""

# No postponed annotations here: Dagster reads that of `config` as it stands, not resolved.

import re
from collections.abc import Callable, Iterator
from typing import Any, Literal, TypeAlias, Unpack

import dagster as dg
from pydantic import Field

from wb_ops.dagster.checks import WandbChecks
from wb_ops.dagster.options import (
    WandbAssetOptions,
    WandbOptions,
    for_request,
    refuse_unknown,
)
from wb_ops.dagster.partitions import backfill_policy_of
from wb_ops.dagster.project import ProjectExport, Reported
from wb_ops.dagster.resource import WandbResource, WarehouseResource, both_or_neither
from wb_ops.dagster.retries import DEFAULT_RETRY_POLICY
from wb_ops.dagster.translator import Kind, WandbTableProps, WandbTranslator

LISTS = ("tables", "states", "keys")
Body: TypeAlias = Callable[..., Iterator[Any]]


class WandbExportConfig(dg.Config):
    """What can be chosen for one launch."""

    mode: Literal["incremental", "reconcile", "full"] = Field(
        default="incremental",
        description="incremental: what may have changed. reconcile: compare the whole listing, "
        "find late edits and deletions. full: read every history again. A partition is compared "
        "whole in any case.",
    )


def wandb_assets(
    *, entity: str, project: str, **options: Unpack[WandbAssetOptions]
) -> Callable[[Body], dg.AssetsDefinition]:
    """Make a generator the body of a project's assets; `WandbResource.export` does the work.

    For what has to happen around an export: a look before it, a message after it, more metadata.
    The body yields what the helper yields. `build_wandb_assets` is the same with a usual body.

    Args:
        entity, project: the W&B project.
        options: see `WandbAssetOptions`.

    Raises:
        InvalidRequest: an argument is wrong, when the definitions load (retry: never).

    Example:
        >>> @wandb_assets(entity="acme", project="nano-gpt")
        ... def nano_gpt(context, wandb: WandbResource, warehouse: WarehouseResource):
        ...     yield from wandb.export(context, warehouse)
        ...     context.log.info("The tables are there.")
    """
    export = _project_export(entity, project, options)
    specs = _specs(export, options)

    def decorate(body: Body) -> dg.AssetsDefinition:
        return dg.multi_asset(
            name=options.get("name") or getattr(body, "__name__", None),
            specs=list(specs.values()),
            check_specs=export.checks.specs({table: spec.key for table, spec in specs.items()}),
            can_subset=True,
            backfill_policy=options.get("backfill_policy")
            or backfill_policy_of(list(specs.values())),
            retry_policy=options.get("retry_policy", DEFAULT_RETRY_POLICY),
            pool=options.get("pool", "wandb_api"),
            op_tags=options.get("op_tags"),
        )(body)

    return decorate


def build_wandb_assets(
    *,
    entity: str,
    project: str,
    wandb: WandbResource | None = None,
    warehouse: WarehouseResource | None = None,
    **options: Unpack[WandbAssetOptions],
) -> dg.AssetsDefinition:
    """Return one multi-asset with the tables of a W&B project.

    An export writes its tables in the same transactions, with their receipts. So it does when
    only one of them is selected: selection decides which asset is reported as materialized,
    never what is written, and the tables cannot come apart. Materializing twice gives the same
    tables.

    Args:
        entity, project: the W&B project.
        wandb, warehouse: resources of these assets alone; by default those of the location, of
            the same names.
        options: see `WandbAssetOptions`.

    Raises:
        InvalidRequest: an argument is wrong, when the definitions load (retry: never).
    """
    if not options.get("name"):
        from wb_ops.warehouse import dataset_name

        dataset = options.get("dataset") or dataset_name(entity, project)
        options["name"] = op_name(f"{dataset}_export")
    decorate = wandb_assets(entity=entity, project=project, **options)
    own = both_or_neither(wandb, warehouse)
    return decorate(_unbound if own is None else _bound(*own))


def _unbound(
    context: dg.AssetExecutionContext,
    config: WandbExportConfig,
    wandb: WandbResource,
    warehouse: WarehouseResource,
) -> Iterator[Reported]:
    """The step's body with the location's resources."""
    yield from wandb.export(context, warehouse, mode=config.mode)


def _bound(wandb: WandbResource, warehouse: WarehouseResource) -> Body:
    """The step's body with resources of its own, which appear in no snapshot."""

    def body(context: dg.AssetExecutionContext, config: WandbExportConfig) -> Iterator[Reported]:
        # Environment variables in them are read here, where the step runs.
        with (
            wandb.process_config_and_initialize_cm() as access,
            warehouse.process_config_and_initialize_cm() as store,
        ):
            yield from access.export(context, store, mode=config.mode)

    return body


def _project_export(entity: str, project: str, options: WandbAssetOptions) -> ProjectExport:
    from wb_ops.export import ExportRequest

    refuse_unknown(options, WandbAssetOptions)
    given = for_request(options, ExportRequest)
    lists = {name: tuple(given[name]) for name in LISTS if name in given}
    request = ExportRequest(entity=entity, project=project, **{**given, **lists})
    return ProjectExport(
        request, options.get("checks") or WandbChecks(), options.get("main_metric")
    )


def _specs(export: ProjectExport, options: WandbAssetOptions) -> dict[str, dg.AssetSpec]:
    """The translator's spec of each table, with what it leaves open."""
    request = export.request
    place = (request.entity, request.project, request.dataset_name)
    tables = dict.fromkeys(("runs", *request.tables))
    specs = {table: table_spec(options.get("translator"), *place, table) for table in tables}
    return {
        table: filled(spec, options).replace_attributes(
            metadata={**spec.metadata, **export.spec_metadata(table)}
        )
        for table, spec in specs.items()
    }


def table_spec(
    translator: WandbTranslator | None,
    entity: str,
    project: str,
    dataset: str,
    table: str,
    kind: Kind = "table",
) -> dg.AssetSpec:
    """Return the translator's spec of one table or backfill."""
    props = WandbTableProps(entity, project, dataset, table, kind)
    return (translator or WandbTranslator()).get_asset_spec(props)


def filled(spec: dg.AssetSpec, options: WandbOptions) -> dg.AssetSpec:
    """Return a translator's spec with what it leaves open, as the options say."""
    return spec.replace_attributes(
        partitions_def=spec.partitions_def or options.get("partitions_def"),
        deps=[*spec.deps, *options.get("deps", ())],
        automation_condition=spec.automation_condition or options.get("automation_condition"),
    )


def op_name(text: str) -> str:
    """Return `text` as a name that Dagster takes for an op."""
    return re.sub(r"\W", "_", text, flags=re.ASCII)
