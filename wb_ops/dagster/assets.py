"""A W&B project's tables as one multi-asset."""

# No postponed annotations here: Dagster reads that of `config` as it stands, not resolved.

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import dagster as dg
from pydantic import Field

from wb_ops.dagster.checks import WandbChecks
from wb_ops.dagster.partitions import backfill_policy_of
from wb_ops.dagster.project import TABLE_KEY, ProjectExport, Reported
from wb_ops.dagster.resource import WandbResource, WarehouseResource
from wb_ops.dagster.retries import DEFAULT_RETRY_POLICY
from wb_ops.dagster.translator import Kind, WandbTableProps, WandbTranslator

if TYPE_CHECKING:
    from wb_ops.export.request import OnIncomplete

TABLES = ("runs", "history")


class WandbExportConfig(dg.Config):
    """What can be chosen for one launch."""

    mode: Literal["incremental", "reconcile", "full"] = Field(
        default="incremental",
        description="incremental: what may have changed. reconcile: compare the whole listing, "
        "find late edits and deletions. full: read every history again. A partition is compared "
        "whole in any case.",
    )


def build_wandb_assets(
    *,
    entity: str,
    project: str,
    dataset: str | None = None,
    filters: Mapping[str, Any] | None = None,
    keys: Sequence[str] | None = None,
    on_incomplete: "OnIncomplete" = "mark",
    max_workers: int = 8,
    name: str | None = None,
    translator: WandbTranslator | None = None,
    partitions_def: dg.PartitionsDefinition | None = None,
    backfill_policy: dg.BackfillPolicy | None = None,
    deps: Sequence[dg.AssetsDefinition | dg.SourceAsset | dg.AssetKey] = (),
    automation_condition: dg.AutomationCondition[dg.AssetKey] | None = None,
    checks: WandbChecks | None = None,
    main_metric: str | None = None,
    retry_policy: dg.RetryPolicy | None = DEFAULT_RETRY_POLICY,
    pool: str | None = "wandb_api",
    op_tags: Mapping[str, str] | None = None,
    wandb: WandbResource | None = None,
    warehouse: WarehouseResource | None = None,
) -> dg.AssetsDefinition:
    """Return one multi-asset with `runs` and `history` of a W&B project.

    An export writes both tables in the same transactions, with their receipts. So it does when
    only one of them is selected: selection decides which asset is reported as materialized,
    never what is written, and the two tables cannot come apart. Materializing twice gives the
    same tables.

    Args:
        entity, project, dataset, filters, keys, on_incomplete, max_workers: as ExportRequest.
        name: the op's name, by default `<dataset>_export`.
        translator: names and describes the assets; its `partitions_def` is kept.
        partitions_def: `created_days(...)` or other time windows: the runs created in them.
            `run_partitions(...)` or other keys: the runs of these ids. Default: all runs.
        backfill_policy: by default one run for a range of windows, one for 50 run ids.
        deps: assets to wait for or to follow, such as `build_wandb_changes(...)`.
        automation_condition: such as `late_data_condition()`.
        checks: which checks the assets have; `WandbChecks()` by default.
        main_metric: the metric drawn on the page of `history`, as logged; by default a likely
            one. "" draws none.
        retry_policy: for errors that a later attempt can cure and that name no wait.
        pool: how many steps may talk to W&B at once is this pool's limit.
        op_tags: tags of the op, such as `dagster-k8s/config`.
        wandb, warehouse: resources of these assets alone; by default those of the location, of
            the same names.

    Raises:
        InvalidRequest: an argument is wrong, when the definitions load (retry: never).
    """
    from wb_ops.export import ExportRequest

    request = ExportRequest(
        entity=entity,
        project=project,
        dataset=dataset,
        filters=filters or {},
        keys=None if keys is None else tuple(keys),
        on_incomplete=on_incomplete,
        max_workers=max_workers,
    )
    specs = {
        table: _with_defaults(
            table_spec(translator, entity, project, request.dataset_name, table),
            table,
            partitions_def,
            deps,
            automation_condition,
        )
        for table in TABLES
    }
    export = ProjectExport(request, checks or WandbChecks(), main_metric)
    decorate = dg.multi_asset(
        name=name or op_name(f"{request.dataset_name}_export"),
        specs=list(specs.values()),
        check_specs=export.checks.specs({table: spec.key for table, spec in specs.items()}),
        can_subset=True,
        backfill_policy=backfill_policy or backfill_policy_of(list(specs.values())),
        retry_policy=retry_policy,
        pool=pool,
        op_tags=op_tags,
    )
    if wandb is not None and warehouse is not None:
        return decorate(_bound(export, wandb, warehouse))
    if wandb is not None or warehouse is not None:
        raise dg.DagsterInvalidDefinitionError("Give both `wandb` and `warehouse`, or neither.")
    return decorate(_unbound(export))


Body: TypeAlias = Callable[..., Iterator[Reported]]


def _unbound(export: ProjectExport) -> Body:
    """The step's body with the location's resources."""

    def body(
        context: dg.AssetExecutionContext,
        config: WandbExportConfig,
        wandb: WandbResource,
        warehouse: WarehouseResource,
    ) -> Iterator[Reported]:
        yield from export.execute(context, wandb, warehouse, config.mode)

    return body


def _bound(export: ProjectExport, wandb: WandbResource, warehouse: WarehouseResource) -> Body:
    """The step's body with resources of its own, which appear in no snapshot."""

    def body(context: dg.AssetExecutionContext, config: WandbExportConfig) -> Iterator[Reported]:
        # Environment variables in them are read here, where the step runs.
        with (
            wandb.process_config_and_initialize_cm() as access,
            warehouse.process_config_and_initialize_cm() as store,
        ):
            yield from export.execute(context, access, store, config.mode)

    return body


def _with_defaults(
    spec: dg.AssetSpec,
    table: str,
    partitions_def: dg.PartitionsDefinition | None,
    deps: Sequence[dg.AssetsDefinition | dg.SourceAsset | dg.AssetKey],
    automation_condition: dg.AutomationCondition[dg.AssetKey] | None,
) -> dg.AssetSpec:
    """Return the translator's spec with what it leaves open."""
    return spec.replace_attributes(
        partitions_def=spec.partitions_def or partitions_def,
        deps=[*spec.deps, *deps],
        automation_condition=spec.automation_condition or automation_condition,
        metadata={**spec.metadata, TABLE_KEY: table},
    )


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


def op_name(text: str) -> str:
    """Return `text` as a name that Dagster takes for an op."""
    return re.sub(r"\W", "_", text, flags=re.ASCII)
