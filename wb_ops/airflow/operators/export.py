"""W&B runs and histories into a warehouse, as a task."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, cast

import wb_ops
from wb_ops.airflow.links import WandbLoadLink, WandbProjectLink
from wb_ops.airflow.operators.arguments import (
    parse_filters,
    parse_flag,
    parse_moment,
    parse_names,
)
from wb_ops.airflow.operators.base import WandbWarehouseOperator
from wb_ops.airflow.operators.loads import remember_load
from wb_ops.airflow.operators.outcomes import AnnouncesExport, check_outlets
from wb_ops.airflow.operators.stores import forget_plan, open_plan
from wb_ops.airflow.operators.windows import resolve_window
from wb_ops.errors import ExportIncomplete

if TYPE_CHECKING:
    from airflow.sdk import BaseOperatorLink, Context

    from wb_ops.client.api import Api
    from wb_ops.export import ExportPlan, ExportReport, ExportRequest, Progress
    from wb_ops.export.request import Mode, OnIncomplete
    from wb_ops.warehouse import Warehouse


class WandbExportRequestOperator(WandbWarehouseOperator):
    """Base of the operators that plan an export: its arguments, as templates.

    Args:
        mode: "incremental", "reconcile" or "full"; see ExportRequest.
        keys: metrics to export, a list or JSON text of one; by default all.
        tables: any of "runs", "history" and "system_metrics", a list or JSON text of one; by
            default the first two.
        states: only runs in these states, such as ["finished"], or JSON text of such a list.
        run_ids: only these runs, a list or JSON text of one; it moves no watermark.
        redact_secrets: store values that look like keys or tokens as "[redacted]".
        since, until: runs created in this window (datetime or ISO text with a time zone).
        window: where none are given: "auto" (the day of the Dag run's partition, else the
            watermark), "watermark", or "data_interval" (runs *created* in the interval).
        on_incomplete: "mark", or "fail" to fail the task after all sound runs are committed.
    """

    template_fields: Sequence[str] = (
        *WandbWarehouseOperator.template_fields,
        "mode",
        "keys",
        "tables",
        "states",
        "run_ids",
        "redact_secrets",
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
        tables: Sequence[str] | str | None = None,
        states: Sequence[str] | str | None = None,
        run_ids: Sequence[str] | str | None = None,
        redact_secrets: bool | str = False,
        since: datetime | str | None = None,
        until: datetime | str | None = None,
        window: str = "auto",
        on_incomplete: str = "mark",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.mode = mode
        self.keys = keys
        self.tables = tables
        self.states = states
        self.run_ids = run_ids
        self.redact_secrets = redact_secrets
        self.since = since
        self.until = until
        self.window = window
        self.on_incomplete = on_incomplete

    def _request(self, api: Api, context: Context) -> ExportRequest:
        from wb_ops.export.request import DEFAULT_TABLES

        entity, project = self._resolve_project(api, context)
        since, until = resolve_window(
            self.window,
            parse_moment("since", self.since),
            parse_moment("until", self.until),
            context,
        )
        tables = parse_names("tables", self.tables)
        # Templates are any text; ExportRequest refuses what is not one of its words.
        return wb_ops.ExportRequest(
            entity=entity,
            project=project,
            dataset=self.dataset or None,
            mode=cast("Mode", self.mode),
            filters=parse_filters(self.filters),
            keys=parse_names("keys", self.keys),
            since=since,
            until=until,
            on_incomplete=cast("OnIncomplete", self.on_incomplete),
            tables=DEFAULT_TABLES if tables is None else tables,
            states=parse_names("states", self.states),
            run_ids=parse_names("run_ids", self.run_ids),
            redact_secrets=parse_flag("redact_secrets", self.redact_secrets),
        )


class WandbExportOperator(AnnouncesExport, WandbExportRequestOperator):
    """Exports one W&B project; a task that is killed or retried converges.

    An incremental export needs no window: the watermark in the warehouse says where to go on.
    Nothing is taken from the Dag run's data interval unless asked for: it is empty for cron
    strings and absent in asset-triggered runs.

    Returns (as XCom) a small dict: load_id, dataset, warehouse, runs, history_rows, system_rows,
    unchanged, deleted, receipts (status -> count), watermark (ISO text or None), schema_hash
    (changes when a column is added; None if the warehouse was busy), loads. The same is the extra
    of each outlet asset's event, with `row_count` for the history rows and without the receipts.
    An outlet made by `wandb_days_asset` has such an event for each day on which a run was created
    that was written, and none where nothing was. What a try commits that fails afterwards or is
    killed, the next one tells of that succeeds: `loads` are the loads that are meant, and `runs`
    and `history_rows` are of all of them (Airflow 3.3; before that of the last one). The XCom
    `load_report` says the same in words, and names the runs that do not add up.

    Args:
        staging: a folder for plans and what is read, a path or a URL that fsspec knows. With it a
            retry goes on where the try before it failed, in the listing as in the rows: on
            Airflow 3.3 and newer the task instance's state store remembers the plan. Before 3.3,
            and without a folder, a retry lists the project again and reads what is not committed.
        mode, keys, tables, states, run_ids, redact_secrets, since, until, window, on_incomplete: as
            in WandbExportRequestOperator.

    Raises:
        WbOpsError: unwrapped, with the advice that the retry policy reads.
    """

    template_fields: Sequence[str] = (*WandbExportRequestOperator.template_fields, "staging")
    operator_extra_links: Sequence[BaseOperatorLink] = (WandbProjectLink(), WandbLoadLink())

    def __init__(self, *, staging: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.staging = staging

    def _work(self, context: Context) -> dict[str, Any]:
        """Plan, log the plan, execute it."""
        self._link_load(context)
        with self.hook.get_conn() as api:
            request = self._request(api, context)
            check_outlets(self, request.entity, request.project)
            warehouse = self._open_warehouse()
            if self.staging:
                plan = open_plan(context, request, api, warehouse, self.staging)
            else:
                plan = wb_ops.plan_export(request, api, warehouse)
            self.log.info("%s", plan)
            remember_load(self, context, plan.load_id)
            if self.staging:
                report = self._execute_staged(context, plan, api, warehouse)
            else:
                report = wb_ops.execute_export(plan, api, warehouse, self._log_progress)
        result = self._announce(context, api, plan, report, warehouse)
        if self.staging:
            forget_plan(context)
        return result

    def _execute_staged(
        self, context: Context, plan: ExportPlan, api: Api, warehouse: Warehouse
    ) -> ExportReport:
        """As one shard, which goes on after what an earlier try has staged."""
        plan_uri = str(plan.uri)
        for shard in plan.shards(1):
            self.log.info("%s", wb_ops.execute_shard(plan_uri, shard, api))
        try:
            return wb_ops.commit_plan(plan_uri, api, warehouse, self._log_progress)
        except ExportIncomplete:
            # The rest is committed: what can help the runs that failed is a plan that has them.
            forget_plan(context)
            raise

    def _log_progress(self, progress: Progress) -> None:
        self.log.info(
            "%d of %d runs, %d rows, %.1f MB in %.1f s",
            progress.runs_done,
            progress.runs_total,
            progress.rows,
            progress.size_bytes / 1e6,
            progress.seconds,
        )
