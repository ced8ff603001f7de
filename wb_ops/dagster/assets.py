"""A W&B project's tables as one multi-asset."""

# No postponed annotations here: Dagster reads that of `config` as it stands, not resolved.

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import dagster as dg
from pydantic import Field

from wb_ops.dagster.metadata import Meter, export_metadata, project_url, table_metadata
from wb_ops.dagster.resource import WandbResource, WarehouseResource
from wb_ops.dagster.retries import DEFAULT_RETRY_POLICY, wandb_retries
from wb_ops.dagster.translator import Kind, WandbTableProps, WandbTranslator

if TYPE_CHECKING:
    from wb_ops.export.report import Progress
    from wb_ops.export.request import ExportRequest, OnIncomplete

TABLES = ("runs", "history")


class WandbExportConfig(dg.Config):
    """What can be chosen for one launch."""

    mode: Literal["incremental", "reconcile", "full"] = Field(
        default="incremental",
        description="incremental: what may have changed. reconcile: compare the whole listing, "
        "find late edits and deletions. full: read every history again.",
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
    retry_policy: dg.RetryPolicy | None = DEFAULT_RETRY_POLICY,
    pool: str | None = "wandb_api",
) -> dg.AssetsDefinition:
    """Return one multi-asset with `runs` and `history` of a W&B project.

    It needs the resources `wandb` and `warehouse`. An export writes both tables in the same
    transactions, with their receipts. So it does when only one of them is selected: selection
    decides which asset is reported as materialized, never what is written, and the two tables
    cannot come apart. Materializing twice gives the same tables.

    Args:
        entity, project, dataset, filters, keys, on_incomplete, max_workers: as ExportRequest.
        name: the op's name, by default `<dataset>_export`.
        translator: names and describes the assets.
        retry_policy: for errors that a later attempt can cure and that name no wait.
        pool: how many steps may talk to W&B at once is this pool's limit.

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
        table: table_spec(translator, entity, project, request.dataset_name, table)
        for table in TABLES
    }

    @dg.multi_asset(
        name=name or op_name(f"{request.dataset_name}_export"),
        specs=list(specs.values()),
        can_subset=True,
        retry_policy=retry_policy,
        pool=pool,
    )
    def export(
        context: dg.AssetExecutionContext,
        config: WandbExportConfig,
        wandb: WandbResource,
        warehouse: WarehouseResource,
    ) -> Iterator[dg.MaterializeResult[None]]:
        with wandb_retries(context):
            chosen = replace(request, mode=config.mode)
            selected = {
                table: spec.key
                for table, spec in specs.items()
                if spec.key in context.selected_asset_keys
            }
            yield from _export(context, chosen, wandb, warehouse, selected)

    return export


def _export(
    context: dg.AssetExecutionContext,
    request: "ExportRequest",
    wandb: WandbResource,
    warehouse: WarehouseResource,
    selected: Mapping[str, dg.AssetKey],
) -> Iterator[dg.MaterializeResult[None]]:
    from wb_ops.export import execute_export, plan_export

    def log_progress(done: "Progress") -> None:
        context.log.info(f"{done.runs_done}/{done.runs_total} runs, {done.rows:,} history rows")

    api, store = wandb.get_api(), warehouse.get_warehouse()
    meter = Meter.start(api)
    plan = plan_export(request, api, store)
    context.log.info(str(plan))
    report = execute_export(plan, api, store, log_progress)
    context.log.info(str(report))
    if report.unsound:
        context.log.warning(f"{len(report.unsound)} histories do not add up: see the receipts")
    load = {**export_metadata(plan, report, project_url(api, request.owner)), **meter.used()}
    for table, key in selected.items():
        metadata = {**table_metadata(store, request.dataset_name, table), **load}
        yield dg.MaterializeResult(asset_key=key, metadata=metadata)


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
