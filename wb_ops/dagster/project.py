"""One project's export inside a step: plan, execute, report each table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import dagster as dg

from wb_ops.dagster.check_results import Loaded, evaluate
from wb_ops.dagster.checks import WandbChecks
from wb_ops.dagster.columns import column_schema, read_added_columns, table_metadata
from wb_ops.dagster.holdings import add_partition_metadata
from wb_ops.dagster.metadata import Metadata, Meter, export_metadata, project_url
from wb_ops.dagster.partitions import Slice
from wb_ops.dagster.plot import curves_markdown
from wb_ops.dagster.resource import WandbResource, WarehouseResource
from wb_ops.dagster.retries import wandb_retries

if TYPE_CHECKING:
    from wb_ops.export import ExportReport
    from wb_ops.export.report import Progress
    from wb_ops.export.request import ExportRequest, Mode
    from wb_ops.warehouse import Warehouse

Reported: TypeAlias = "dg.MaterializeResult[None] | dg.AssetCheckResult"

# On each spec: which table the asset is, whatever its key is changed to, and what is exported.
TABLE_KEY = "wandb/table"
EXPORT_KEY = "wandb/export"


@dataclass(frozen=True, slots=True)
class ProjectExport:
    """What a step exports, what it checks, and what it shows.

    Attributes:
        request: the export, before a step's partitions narrow it.
        checks: the checks that its assets have.
        main_metric: the metric to draw, as logged; None: a likely one. "" draws none.
    """

    request: ExportRequest
    checks: WandbChecks
    main_metric: str | None = None

    def spec_metadata(self, table: str) -> dict[str, Any]:
        """What an asset's spec carries, for the page of the asset and for `of`."""
        carried = {
            "request": self.request.to_json(),
            "checks": asdict(self.checks),
            "main_metric": self.main_metric,
        }
        return {TABLE_KEY: table, EXPORT_KEY: dg.MetadataValue.json(carried)}

    @classmethod
    def of(cls, context: dg.AssetExecutionContext) -> ProjectExport:
        """Read it from the specs of the step's assets.

        Raises:
            DagsterInvalidDefinitionError: they were not made by `wandb_assets`.
        """
        from wb_ops.export import ExportRequest

        for spec in context.assets_def.specs:
            if isinstance(value := spec.metadata.get(EXPORT_KEY), dg.JsonMetadataValue):
                carried: Any = value.data
                request = ExportRequest.from_json(carried["request"])
                return cls(request, WandbChecks(**carried["checks"]), carried["main_metric"])
        raise dg.DagsterInvalidDefinitionError(
            "WandbResource.export works inside the body of @wandb_assets only."
        )

    def execute(
        self,
        context: dg.AssetExecutionContext,
        wandb: WandbResource,
        warehouse: WarehouseResource,
        mode: Mode,
    ) -> Iterator[Reported]:
        """Export and report what is selected. Selection decides what is reported, never written.

        Raises:
            dagster.Failure, dagster.RetryRequested: as `wandb_retries` translates.
        """
        with wandb_retries(context):
            yield from self._execute(context, wandb, warehouse, replace(self.request, mode=mode))

    def _execute(
        self,
        context: dg.AssetExecutionContext,
        wandb: WandbResource,
        warehouse: WarehouseResource,
        request: ExportRequest,
    ) -> Iterator[Reported]:
        from wb_ops.export import execute_export, plan_export

        def log_progress(done: Progress) -> None:
            context.log.info(f"{done.runs_done}/{done.runs_total} runs, {done.rows:,} history rows")

        specs = _selected(context)
        part = Slice.of(context, next(iter(specs.values())).partitions_def)
        api, store = wandb.get_api(), warehouse.get_warehouse()
        meter = Meter.start(api)
        plan = plan_export(part.narrow(request) if part else request, api, store)
        context.log.info(str(plan))
        report = execute_export(plan, api, store, log_progress)
        context.log.info(str(report))
        if report.unsound:
            context.log.warning(
                f"{len(report.unsound)} of {len(report.receipts)} receipts do not add up: see them "
                "in the metadata"
            )
        page = project_url(api, request.owner)
        load = {**export_metadata(plan, report, page), **meter.used()}
        yield from self._report(context, store, specs, part, report, page, load)

    def _report(
        self,
        context: dg.AssetExecutionContext,
        store: Warehouse,
        specs: Mapping[str, dg.AssetSpec],
        part: Slice | None,
        report: ExportReport,
        page: str,
        load: Metadata,
    ) -> Iterator[Reported]:
        dataset = self.request.dataset_name
        chosen = {
            table: spec.key
            for table, spec in specs.items()
            if spec.key in context.selected_asset_keys
        }
        if part is not None:
            add_partition_metadata(context, part, store, dataset, chosen)
        added = read_added_columns(store, dataset)
        for table, spec in specs.items():
            columns = column_schema(added, table)
            loaded = Loaded(
                context, store, dataset, table, spec.key, part, report.load_id, page, columns
            )
            # Answered before the materialization is stored: it becomes the last one then.
            answers = list(evaluate(self.checks, loaded))
            if table in chosen:
                own = table_metadata(store, dataset, table, columns)
                shown = {**own, **self._curves(store, table, part), **load}
                yield dg.MaterializeResult(asset_key=spec.key, metadata=shown)
            yield from answers

    def _curves(self, store: Warehouse, table: str, part: Slice | None) -> Metadata:
        # A result's metadata is kept once for each partition: no picture of a range.
        if table != "history" or self.main_metric == "" or (part and len(part.keys) > 1):
            return {}
        picture = curves_markdown(store, self.request.dataset_name, self.main_metric, part)
        return {} if picture is None else {"wandb/curves": dg.MetadataValue.md(picture)}


def _selected(context: dg.AssetExecutionContext) -> dict[str, dg.AssetSpec]:
    """The assets that are selected, or have a check that is: table -> spec."""
    keys = {*context.selected_asset_keys}
    keys |= {check.asset_key for check in context.selected_asset_check_keys}
    specs = (spec for spec in context.assets_def.specs if spec.key in keys)
    return {str(spec.metadata[TABLE_KEY]): spec for spec in specs}
