"""What a backfill tells when its plan is written: the log, and what goes into XCom."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import wb_ops
from wb_ops.errors import WbOpsError

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator, Context

    from wb_ops.backfill import BackfillPlan, BackfillReport
    from wb_ops.client.api import Api
    from wb_ops.warehouse import Warehouse

REPORT_KEY = "backfill_report"


def execute_plan(
    operator: BaseOperator,
    plan: BackfillPlan,
    api: Api,
    warehouse: Warehouse,
    context: Context,
) -> dict[str, Any]:
    """Write a plan; log what was left alone and why; return what goes into XCom.

    Raises:
        WbOpsError: unwrapped; what became of the values until then is logged, and counted in the
            XCom `backfill_report`.
    """
    try:
        report = wb_ops.execute_backfill(plan, api, warehouse)
    except WbOpsError as error:
        if error.report is not None:
            _log_report(operator, error.report)
            context["ti"].xcom_push(key=REPORT_KEY, value=_result(error.report))
        raise
    _log_report(operator, report)
    return _result(report)


def _log_report(operator: BaseOperator, report: BackfillReport) -> None:
    operator.log.info("%s", report)
    for what, values in (
        ("was changed meanwhile, left alone", report.conflicts),
        ("was refused by the server", report.failed),
        ("was not sent", report.not_sent),
        ("is not what was written", report.unverified),
        ("of another writer was replaced and is not put back: resume", report.owed),
    ):
        for value in values:
            operator.log.warning("run %s: %s %s", value.run_id, value.key, what)


def _result(report: BackfillReport) -> dict[str, Any]:
    return {
        "backfill_id": report.backfill_id,
        "written": len(report.written),
        "unchanged": report.unchanged,
        "skipped": report.skipped,
        "conflicts": len(report.conflicts),
        "gone": len(report.gone),
        "failed": len(report.failed),
        "not_sent": len(report.not_sent),
        "unverified": len(report.unverified),
        "repaired": report.repaired,
        "owed": len(report.owed),
        "rewritten": report.rewritten,
        "runs": report.runs,
    }
