"""What a person sees on a terminal, what a log keeps, what a program reads."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from wb_ops.cli.progress import progress_bar
from wb_ops.client.pacing import RequestBudget
from wb_ops.export import ExportPlan, ExportReport, Progress
from wb_ops.export.decide import AS_BEFORE

MAX_RECEIPTS = 20


class Output:
    """Prints plans, progress and reports as text, or collects nothing and prints JSON."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._console = Console()

    def plan(self, plan: ExportPlan) -> None:
        """Print what will be done."""
        if not self._as_json:
            click.echo(str(plan))
            return
        summary = {
            "mode": plan.mode,
            "dataset": plan.request.dataset_name,
            "listed": plan.listed,
            "unchanged": plan.unchanged,
            "to_write": plan.totals.runs,
            "reasons": plan.totals.reasons,
            "deleted": len(plan.deleted),
            "hidden": plan.hidden,
            "broken": plan.broken,
            "histories": plan.totals.histories,
            "continued": plan.totals.tails,
            "history_rows": plan.history_rows,
            "system_metrics": plan.totals.systems,
            "requests": plan.requests,
            "minutes": round(plan.minutes, 2),
            "limit_left": plan.limit_left,
            "limit_reset_s": plan.limit_reset_s,
        }
        click.echo(json.dumps({"plan": summary}))

    @contextmanager
    def progress(self, budget: RequestBudget) -> Iterator[Callable[[Progress], None] | None]:
        """Show a bar on a terminal, a line now and then elsewhere; nothing beside JSON."""
        if self._as_json:
            yield None
            return
        with progress_bar(self._console, "runs") as advance:

            def on_progress(now: Progress) -> None:
                seconds = max(now.seconds, 1e-3)
                speed = (
                    f"{now.rows:,} rows  {now.rows / seconds:,.0f} rows/s  "
                    f"{now.size_bytes / seconds / 1e6:.1f} MB/s"
                )
                if (wait_s := budget.wait_s) > 0:
                    speed += f"  W&B's limit: {wait_s:.0f} s"
                elif (quota := budget.quota) is not None:
                    speed += f"  W&B's limit: {100 * quota.left:.3g} % left"
                advance(now.runs_done, now.runs_total, speed)

            yield on_progress

    def report(self, report: ExportReport) -> None:
        """Print what was done, with the receipts that need a look first."""
        if self._as_json:
            click.echo(json.dumps({"report": _plain(report)}))
            return
        if report.receipts:
            self._console.print(_receipts(report))
        click.echo(str(report))
        if report.unsound:
            same_twice = sum(one.note == AS_BEFORE for one in report.unsound)
            later = f", {same_twice} of them by the next reconcile" if same_twice else ""
            click.echo(
                f"{len(report.unsound)} receipts do not add up: their runs are read again next "
                f"time{later}"
            )


def _receipts(report: ExportReport) -> Table:
    table = Table(title=f"receipts of {report.dataset}", title_justify="left")
    for name in ("run", "status", "rows", "server rows", "first step", "last step", "source"):
        table.add_column(name, justify="left" if name in ("run", "status", "source") else "right")
    ordered = sorted(report.receipts, key=lambda one: (one.is_sound, one.run_id))
    for one in ordered[:MAX_RECEIPTS]:
        cells = (one.rows_read, one.server_rows, one.first_step, one.last_step)
        numbers = ("" if cell is None else f"{cell:,}" for cell in cells)
        # Texts of others are no markup: a "[" of theirs must stay one.
        why = escape(one.note or one.source or "")
        table.add_row(escape(one.run_id), one.status, *numbers, why)
    if len(ordered) > MAX_RECEIPTS:
        table.caption = f"and {len(ordered) - MAX_RECEIPTS} more, in _wb_receipts"
    return table


def _plain(report: ExportReport) -> dict[str, object]:
    document = dataclasses.asdict(report)
    del document["advices"], document["facts"]
    return {**document, "statuses": report.statuses}
