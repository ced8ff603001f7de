"""What an export tells when it is committed: XCom, events of assets, lineage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk import Asset, BaseOperator

from wb_ops.airflow.lineage import Exported, openlineage_of, read_columns
from wb_ops.airflow.links import WandbLoadLink, load_url
from wb_ops.airflow.operators.loads import (
    assets_of,
    forget_loads,
    unannounced_loads,
)
from wb_ops.airflow.operators.stores import mirror_watermark
from wb_ops.airflow.uris import days_uri, is_days_uri
from wb_ops.errors import InvalidRequest

if TYPE_CHECKING:
    from airflow.sdk import Context

    from wb_ops.airflow.lineage import Lineage
    from wb_ops.client.api import Api
    from wb_ops.export import ExportPlan, ExportReport
    from wb_ops.warehouse import Warehouse

REPORT_KEY = "load_report"
MAX_UNSOUND = 50
_ANNOUNCED = (
    "load_id",
    "loads",
    "dataset",
    "warehouse",
    "runs",
    "system_rows",
    "unchanged",
    "deleted",
    "watermark",
    "schema_hash",
)


class AnnouncesExport(BaseOperator):
    """Mixin of the operators that end an export: link, report, events, state, lineage."""

    _exported: Exported | None = None

    def _link_load(self, context: Context) -> None:
        """Lead to the load's report while the task still runs."""
        context["ti"].xcom_push(key=WandbLoadLink.xcom_key, value=load_url(context))

    def _announce(
        self,
        context: Context,
        api: Api,
        plan: ExportPlan,
        report: ExportReport,
        warehouse: Warehouse,
    ) -> dict[str, Any]:
        """Tell everybody what is committed; return what goes into XCom."""
        text = report_text(report)
        self.log.info("%s", text)
        context["ti"].xcom_push(key=REPORT_KEY, value=text)
        self._exported = Exported(
            base_url=api.transport.settings.base_url,
            entity=plan.request.entity,
            project=plan.request.project,
            warehouse=report.warehouse,
            dataset=report.dataset,
            rows=_rows(plan, report),
            columns=read_columns(warehouse, report.dataset, plan.request.tables),
        )
        result = _result(plan, report) | {"schema_hash": self._exported.schema_hash}
        result |= unannounced_loads(self, context, warehouse, report)
        silent = _describe_outlets(self, context, result, warehouse)
        forget_loads(self, context, result["loads"])
        # Airflow makes an event for each outlet that a task still has when it ends.
        self.outlets = [one for one in self.outlets if one not in silent]
        return result

    def get_openlineage_facets_on_complete(self, task_instance: object) -> Lineage | None:
        """Describe the export for Airflow's OpenLineage provider, which calls this if installed."""
        return None if self._exported is None else openlineage_of(self._exported)


def report_text(report: ExportReport) -> str:
    """The report in words, with the runs that do not add up; bounded, because XCom keeps it."""
    lines = [
        f"run {one.run_id}: {one.status} {one.note or ''}".rstrip()
        for one in report.unsound[:MAX_UNSOUND]
    ]
    if (more := len(report.unsound) - MAX_UNSOUND) > 0:
        lines.append(f"and {more} more: see _wb_receipts")
    return "\n".join([f"{report.load_id}: {report}", *lines])


def check_outlets(operator: BaseOperator, entity: str, project: str) -> None:
    """Refuse, before anything is read, an asset of days that this export cannot announce.

    Raises:
        InvalidRequest: it is of another project (retry: never).
    """
    for asset in assets_of(operator):
        if is_days_uri(asset.uri) and asset.uri != days_uri(entity, project):
            raise InvalidRequest(
                f"The outlet {asset.uri} is not of {entity}/{project}: give "
                f'wandb_days_asset("{entity}/{project}").'
            )


def _describe_outlets(
    operator: BaseOperator, context: Context, result: dict[str, Any], warehouse: Warehouse
) -> list[Asset]:
    """Describe the export on each outlet asset; return those that there is nothing to tell of.

    An asset of days has an event for each day, and none that is without a day.
    """
    extra = {name: result[name] for name in _ANNOUNCED} | {"row_count": result["history_rows"]}
    of_days = [asset for asset in assets_of(operator) if is_days_uri(asset.uri)]
    days = _days(warehouse, result["dataset"], result["loads"]) if of_days else []
    silent = [] if days else of_days
    for asset in assets_of(operator):
        if result["watermark"] is not None:
            mirror_watermark(context, asset, extra)
        if asset in silent:
            continue
        event = context["outlet_events"][asset]
        event.extra.update(extra)
        if asset in of_days:
            event.add_partitions(days)
    return silent


def _days(warehouse: Warehouse, dataset: str, loads: Sequence[str]) -> list[str]:
    """The days (UTC) on which the runs were created that these loads wrote or marked deleted."""
    import pyarrow as pa

    from wb_ops.warehouse.sql import literals

    sql = f"select distinct created_at from runs where _load_id in ({literals(loads)})"
    # Without its zone a moment is that of UTC, and no database of time zones is needed.
    moments = warehouse.query(sql, dataset)["created_at"].cast(pa.timestamp("us"))
    return sorted(moments.cast(pa.date32()).cast(pa.string()).unique().drop_null().to_pylist())


def _result(plan: ExportPlan, report: ExportReport) -> dict[str, Any]:
    watermark = plan.after.watermark
    return {
        "load_id": report.load_id,
        "dataset": report.dataset,
        "warehouse": report.warehouse,
        "runs": report.runs,
        "history_rows": report.history_rows,
        "system_rows": report.system_rows,
        "unchanged": report.unchanged,
        "deleted": report.deleted,
        "receipts": report.statuses,
        "watermark": None if watermark is None else watermark.isoformat(),
    }


def _rows(plan: ExportPlan, report: ExportReport) -> dict[str, int]:
    """The rows of each table that the export was asked for; `runs` is always written."""
    written = {
        "runs": report.runs,
        "history": report.history_rows,
        "system_metrics": report.system_rows,
    }
    return {name: rows for name, rows in written.items() if name in ("runs", *plan.request.tables)}
