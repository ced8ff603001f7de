"""What an asset's page in Dagster shows of an export or a backfill."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import quote

import dagster as dg

from wb_ops.settings import project_url as page_of_project

if TYPE_CHECKING:
    from wb_ops.backfill import BackfillPlan, BackfillReport, PlannedValue
    from wb_ops.client.api import Api
    from wb_ops.export import ExportPlan, ExportReport
    from wb_ops.export.receipts import Receipt
    from wb_ops.warehouse import Owner

Metadata: TypeAlias = dict[str, dg.MetadataValue | str | int | float]

# Event logs keep every materialization for ever: tables in them stay short.
MAX_ROWS_SHOWN = 50
_WORST_FIRST = ("failed", "unexplained", "deleted", "growing", "complete")


@dataclass(frozen=True, slots=True)
class Meter:
    """What an Api had used at one moment; `used` tells what it has used since."""

    api: Api
    requests: int
    received_bytes: int
    waited_s: float
    at: float

    @classmethod
    def start(cls, api: Api) -> Meter:
        """Read the meter now."""
        now = api.transport.traffic
        return cls(api, now.requests, now.received_bytes, now.waited_s, time.monotonic())

    def used(self) -> Metadata:
        """Requests, bytes, and seconds; of these, the seconds waited for W&B's request limit."""
        now = Meter.start(self.api)
        return {
            "wandb/requests": now.requests - self.requests,
            "wandb/received_bytes": now.received_bytes - self.received_bytes,
            "wandb/waited_s": round(now.waited_s - self.waited_s, 3),
            "wandb/seconds": round(now.at - self.at, 3),
        }


def export_metadata(plan: ExportPlan, report: ExportReport, project_url: str) -> Metadata:
    """Describe one load, the same for each of its tables."""
    return {
        "wandb/project": dg.MetadataValue.url(project_url),
        "wandb/load_id": report.load_id,
        "wandb/mode": plan.mode,
        "wandb/runs_written": report.runs,
        "wandb/runs_unchanged": report.unchanged,
        "wandb/runs_deleted": report.deleted,
        "wandb/history_rows_written": report.history_rows,
        "wandb/system_rows_written": report.system_rows,
        "wandb/new_columns": len(report.new_columns),
        "wandb/statuses": dg.MetadataValue.json(report.statuses),
        "wandb/receipts": dg.MetadataValue.md(_receipts(report.receipts, project_url)),
    }


def backfill_metadata(report: BackfillReport, project_url: str) -> Metadata:
    """Describe what was written back to W&B."""
    return {
        "wandb/project": dg.MetadataValue.url(project_url),
        "wandb/backfill_id": report.backfill_id,
        "wandb/runs_changed": report.runs,
        "wandb/values_written": len(report.written),
        "wandb/values_unchanged": report.unchanged,
        "wandb/values_skipped": report.skipped,
        "wandb/values_in_conflict": len(report.conflicts),
        "wandb/values_of_deleted_runs": len(report.gone),
        "wandb/values_refused": len(report.failed),
        "wandb/values_lost_and_written_again": report.rewritten,
        "wandb/values_of_others_put_back": report.repaired,
        "wandb/values_owed_to_others": len(report.owed),
        "wandb/values": dg.MetadataValue.md(_values(report.written, project_url)),
    }


def dry_run_metadata(plan: BackfillPlan, project_url: str) -> Metadata:
    """Describe what would be written."""
    return {
        "wandb/project": dg.MetadataValue.url(project_url),
        "wandb/backfill_id": plan.backfill_id,
        "wandb/counts": dg.MetadataValue.json(plan.counts),
        "wandb/values": dg.MetadataValue.md(_values(plan.to_set, project_url)),
    }


def project_url(api: Api, owner: Owner) -> str:
    """The project's page on the server that `api` talks to."""
    return page_of_project(api.transport.settings.base_url, owner.entity, owner.project)


def _receipts(receipts: Sequence[Receipt], project_url: str) -> str:
    worst_first = sorted(receipts, key=lambda one: _WORST_FIRST.index(one.status))
    rows = (
        (
            run_link(one.run_id, project_url),
            one.status,
            one.rows_read,
            one.server_rows,
            one.last_step,
            one.source,
            one.note,
        )
        for one in worst_first[:MAX_ROWS_SHOWN]
    )
    head = ("run", "status", "rows read", "rows on the server", "last step", "source", "note")
    return markdown_table(head, rows, len(receipts), "No history has changed.")


def _values(values: Sequence[PlannedValue], project_url: str) -> str:
    rows = (
        (run_link(value.run_id, project_url), value.key, value.old, value.new)
        for value in values[:MAX_ROWS_SHOWN]
    )
    return markdown_table(("run", "key", "old", "new"), rows, len(values), "Nothing to write.")


def run_link(run_id: str, project_url: str) -> str:
    """Return a Markdown link to a run's page."""
    return f"[{_cell(run_id)}]({project_url}/runs/{quote(run_id, safe='')})"


def markdown_table(
    head: Sequence[str],
    rows: Iterable[Sequence[str | int | None]],
    count: int,
    empty: str,
    shown: int = MAX_ROWS_SHOWN,
) -> str:
    """Return rows as Markdown; `count` is how many there would be, `rows` at most `shown`."""
    if count == 0:
        return empty
    lines = [_line(head), _line(["---"] * len(head)), *map(_line, rows)]
    if count > shown:
        lines.append(f"\n{shown} of {count:,}; the warehouse has them all.")
    return "\n".join(lines)


def _line(cells: Sequence[str | int | None]) -> str:
    first, *others = cells
    return f"| {first} | {' | '.join(map(_cell, others))} |"


def _cell(value: str | int | None) -> str:
    text = "" if value is None else str(value)
    return " ".join(text.replace("|", "\\|").split())[:200]
