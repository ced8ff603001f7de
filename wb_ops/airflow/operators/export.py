"""W&B runs and histories into a warehouse, as a task."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, cast

from airflow.sdk import Asset

import wb_ops
from wb_ops.airflow.lineage import Exported, openlineage_of, read_columns
from wb_ops.airflow.operators.arguments import parse_filters, parse_keys, parse_moment
from wb_ops.airflow.operators.base import WandbWarehouseOperator
from wb_ops.airflow.operators.windows import resolve_window

if TYPE_CHECKING:
    from airflow.sdk import Context

    from wb_ops.airflow.lineage import Lineage
    from wb_ops.client.api import Api
    from wb_ops.export import ExportPlan, ExportReport, ExportRequest, Progress
    from wb_ops.export.request import Mode, OnIncomplete


class WandbExportOperator(WandbWarehouseOperator):
    """Exports one W&B project; a task that is killed or retried converges.

    An incremental export needs no window: the watermark in the warehouse says where to go on.
    Nothing is taken from the Dag run's data interval unless asked for: it is empty for cron
    strings and absent in asset-triggered runs.

    Returns (as XCom) a small dict: load_id, dataset, warehouse, runs, history_rows, unchanged,
    deleted, receipts (status -> count), watermark (ISO text or None), schema_hash (changes when
    a column is added; None if the warehouse was busy). The same is the extra of each outlet
    asset's event, with `row_count` for the history rows and without the receipts.

    Args:
        mode: "incremental", "reconcile" or "full"; see ExportRequest.
        keys: metrics to export, a list or JSON text of one; by default all.
        since, until: runs created in this window (datetime or ISO text with a time zone).
        window: where none are given: "auto" (the day of the Dag run's partition, else the
            watermark), "watermark", or "data_interval" (runs *created* in the interval).
        on_incomplete: "mark", or "fail" to fail the task after all sound runs are committed.

    Raises:
        WbOpsError: unwrapped, with the advice that the retry policy reads.
    """

    template_fields: Sequence[str] = (
        *WandbWarehouseOperator.template_fields,
        "mode",
        "keys",
        "since",
        "until",
        "window",
        "on_incomplete",
    )

    def __init__(
        self,
        *,
        mode: str = "incremental",
        keys: Sequence[str] | str | None = None,
        since: datetime | str | None = None,
        until: datetime | str | None = None,
        window: str = "auto",
        on_incomplete: str = "mark",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.mode = mode
        self.keys = keys
        self.since = since
        self.until = until
        self.window = window
        self.on_incomplete = on_incomplete
        self._exported: Exported | None = None

    def _work(self, context: Context) -> dict[str, Any]:
        """Plan, log the plan, execute it."""
        with self.hook.get_conn() as api:
            request = self._request(api, context)
            warehouse = wb_ops.connect(self.warehouse)
            plan = wb_ops.plan_export(request, api, warehouse)
            self.log.info("%s", plan)
            report = wb_ops.execute_export(plan, api, warehouse, self._log_progress)
        self.log.info("%s", report)
        for receipt in report.unsound:
            self.log.warning("run %s: %s %s", receipt.run_id, receipt.status, receipt.note or "")
        self._exported = Exported(
            base_url=api.transport.settings.base_url,
            entity=request.entity,
            project=request.project,
            warehouse=report.warehouse,
            dataset=report.dataset,
            rows={"runs": report.runs, "history": report.history_rows},
            columns=read_columns(warehouse, report.dataset),
        )
        result = {**_result(plan, report), "schema_hash": self._exported.schema_hash}
        self._describe_outlets(context, result)
        return result

    def get_openlineage_facets_on_complete(self, task_instance: object) -> Lineage | None:
        """Describe the export for Airflow's OpenLineage provider, which calls this if installed."""
        return None if self._exported is None else openlineage_of(self._exported)

    def _request(self, api: Api, context: Context) -> ExportRequest:
        entity, project = self._resolve_project(api, context)
        since, until = resolve_window(
            self.window,
            parse_moment("since", self.since),
            parse_moment("until", self.until),
            context,
        )
        # Templates are any text; ExportRequest refuses what is not one of its words.
        return wb_ops.ExportRequest(
            entity=entity,
            project=project,
            dataset=self.dataset or None,
            mode=cast("Mode", self.mode),
            filters=parse_filters(self.filters),
            keys=parse_keys(self.keys),
            since=since,
            until=until,
            on_incomplete=cast("OnIncomplete", self.on_incomplete),
        )

    def _log_progress(self, progress: Progress) -> None:
        self.log.info(
            "%d of %d runs, %d rows, %.1f MB in %.1f s",
            progress.runs_done,
            progress.runs_total,
            progress.rows,
            progress.size_bytes / 1e6,
            progress.seconds,
        )

    def _describe_outlets(self, context: Context, result: dict[str, Any]) -> None:
        extra = {name: result[name] for name in _ANNOUNCED} | {"row_count": result["history_rows"]}
        for outlet in self.outlets:
            if isinstance(outlet, Asset):
                context["outlet_events"][outlet].extra.update(extra)


_ANNOUNCED = (
    "load_id",
    "dataset",
    "warehouse",
    "runs",
    "unchanged",
    "deleted",
    "watermark",
    "schema_hash",
)


def _result(plan: ExportPlan, report: ExportReport) -> dict[str, Any]:
    watermark = plan.after.watermark
    return {
        "load_id": report.load_id,
        "dataset": report.dataset,
        "warehouse": report.warehouse,
        "runs": report.runs,
        "history_rows": report.history_rows,
        "unchanged": report.unchanged,
        "deleted": report.deleted,
        "receipts": report.statuses,
        "watermark": None if watermark is None else watermark.isoformat(),
    }
