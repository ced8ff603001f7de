"""Computed values back into W&B summaries, as a task."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, cast

import wb_ops
from wb_ops.airflow.operators.arguments import parse_filters, parse_flag
from wb_ops.airflow.operators.base import WandbOperator

if TYPE_CHECKING:
    from airflow.sdk import Context

    from wb_ops.backfill import BackfillPlan, BackfillReport, BackfillRequest
    from wb_ops.backfill.request import Policy
    from wb_ops.client.api import Api
    from wb_ops.client.runs import Run


class WandbBackfillSummaryOperator(WandbOperator):
    """Computes values per run and writes them into the runs' summaries.

    The plan (run, key, old value, new value) is logged before anything is written. Values that
    are already there are not written again, so a retried task converges.

    Returns (as XCom) a small dict: backfill_id, dry_run, planned (action -> count), and the
    number of values written, unchanged, skipped, conflicts and gone, and of runs changed.

    Args:
        sql: a SELECT of `run_id` and a column for each summary key, on the warehouse's dataset;
            text, or the name of a .sql file.
        python_callable: instead of `sql`: takes a run, returns a dict of summary keys.
        policy: "overwrite" a value that differs, or write "only_missing" ones.
        include_running: also write to runs that still log.
        dry_run: plan and log, write nothing; true, false, or a template of them.

    Raises:
        WbOpsError: unwrapped, with the advice that the retry policy reads.
    """

    # BaseOperator has a method dry_run, so the attribute needs another name than the argument.
    template_fields: Sequence[str] = (
        *WandbOperator.template_fields,
        "sql",
        "policy",
        "is_dry_run",
    )
    template_ext: Sequence[str] = (".sql",)
    template_fields_renderers: ClassVar[dict[str, str]] = {"filters": "json", "sql": "sql"}

    def __init__(
        self,
        *,
        sql: str | None = None,
        python_callable: Callable[[Run], Mapping[str, Any]] | None = None,
        policy: str = "overwrite",
        include_running: bool = False,
        dry_run: bool | str = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.sql = sql
        self.python_callable = python_callable
        self.policy = policy
        self.include_running = include_running
        self.is_dry_run = dry_run

    def execute(self, context: Context) -> dict[str, Any]:
        """Plan, log the plan, execute it unless this is a dry run."""
        is_dry_run = parse_flag("dry_run", self.is_dry_run)
        with self.hook.get_conn() as api:
            request = self._request(api, context)
            warehouse = wb_ops.connect(self.warehouse)
            plan = wb_ops.plan_backfill(request, api, warehouse)
            self.log.info("%s", plan)
            if is_dry_run:
                return {"backfill_id": plan.backfill_id, "dry_run": True, "planned": plan.counts}
            report = wb_ops.execute_backfill(plan, api, warehouse)
        self.log.info("%s", report)
        for value in report.conflicts:
            self.log.warning(
                "run %s: %s was changed meanwhile, left alone", value.run_id, value.key
            )
        return _result(plan, report)

    def _request(self, api: Api, context: Context) -> BackfillRequest:
        entity, project = self._resolve_project(api, context)
        return wb_ops.BackfillRequest(
            entity=entity,
            project=project,
            sql=self.sql,
            compute=self.python_callable,
            dataset=self.dataset or None,
            filters=parse_filters(self.filters),
            # Templates are any text; BackfillRequest refuses what is not one of its words.
            policy=cast("Policy", self.policy),
            include_running=self.include_running,
        )


def _result(plan: BackfillPlan, report: BackfillReport) -> dict[str, Any]:
    return {
        "backfill_id": report.backfill_id,
        "dry_run": False,
        "planned": plan.counts,
        "written": len(report.written),
        "unchanged": report.unchanged,
        "skipped": report.skipped,
        "conflicts": len(report.conflicts),
        "gone": len(report.gone),
        "runs": report.runs,
    }
