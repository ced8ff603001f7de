"""W&B runs and histories into a warehouse, as a task."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, cast

from airflow.sdk import Asset

import wb_ops
from wb_ops.airflow.operators.arguments import parse_filters, parse_keys, parse_moment
from wb_ops.airflow.operators.base import WandbOperator

if TYPE_CHECKING:
    from airflow.sdk import Context

    from wb_ops.client.api import Api
    from wb_ops.export import ExportPlan, ExportReport, ExportRequest, Progress
    from wb_ops.export.request import Mode, OnIncomplete


class WandbExportOperator(WandbOperator):
    """Exports one W&B project; a task that is killed or retried converges.

    An incremental export needs no window: the watermark in the warehouse says where to go on.
    Nothing is taken from the Dag run's data interval, which is empty for cron strings and absent
    in asset-triggered runs.

    Returns (as XCom) a small dict: load_id, dataset, warehouse, runs, history_rows, unchanged,
    deleted, receipts (status -> count), watermark (ISO text or None). The same counts are the
    extra of each outlet asset's event, with `row_count` for the history rows.

    Args:
        mode: "incremental", "reconcile" or "full"; see ExportRequest.
        keys: metrics to export, a list or JSON text of one; by default all.
        since, until: runs created in this window (datetime or ISO text with a time zone).
        on_incomplete: "mark", or "fail" to fail the task after all sound runs are committed.

    Raises:
        WbOpsError: unwrapped, with the advice that the retry policy reads.
    """

    template_fields: Sequence[str] = (
        *WandbOperator.template_fields,
        "mode",
        "keys",
        "since",
        "until",
        "on_incomplete",
    )

    def __init__(
        self,
        *,
        mode: str = "incremental",
        keys: Sequence[str] | str | None = None,
        since: datetime | str | None = None,
        until: datetime | str | None = None,
        on_incomplete: str = "mark",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.mode = mode
        self.keys = keys
        self.since = since
        self.until = until
        self.on_incomplete = on_incomplete

    def execute(self, context: Context) -> dict[str, Any]:
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
        result = _result(plan, report)
        self._describe_outlets(context, result)
        return result

    def _request(self, api: Api, context: Context) -> ExportRequest:
        entity, project = self._resolve_project(api, context)
        # Templates are any text; ExportRequest refuses what is not one of its words.
        return wb_ops.ExportRequest(
            entity=entity,
            project=project,
            dataset=self.dataset or None,
            mode=cast("Mode", self.mode),
            filters=parse_filters(self.filters),
            keys=parse_keys(self.keys),
            since=parse_moment("since", self.since),
            until=parse_moment("until", self.until),
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
        names = ("load_id", "runs", "unchanged", "deleted", "watermark", "dataset")
        extra = {"row_count": result["history_rows"], **{name: result[name] for name in names}}
        for outlet in self.outlets:
            if isinstance(outlet, Asset):
                context["outlet_events"][outlet].extra.update(extra)


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
