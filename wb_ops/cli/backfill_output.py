"""A backfill's plan and report: coloured on a terminal, plain in a log, JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from wb_ops.backfill import BackfillPlan, BackfillReport, PlannedValue
from wb_ops.backfill.plan import MAX_SHOWN
from wb_ops.backfill.planned import COLUMNS
from wb_ops.cli.progress import progress_bar

_ACTION_STYLES = {
    "set": "green", "put_back": "green", "conflict": "red", "skipped": "yellow", "unchanged": "dim"
}  # fmt: skip
_DIFF_COLOURS = {"+": "green", "-": "red"}


def print_plan(plan: BackfillPlan, *, as_json: bool, diff: bool) -> None:
    """Print the values as a diff or a table, then the counts and the plan's hash."""
    if as_json:
        head = {"backfill_id": plan.backfill_id, "hash": plan.hash}
        click.echo(json.dumps({"plan": {**head, "counts": plan.counts}}))
        return
    console = Console()
    if diff:
        for line in plan.to_diff().splitlines():
            # click takes the colours out where the output is no terminal.
            click.secho(line, fg=_DIFF_COLOURS.get(line[:1]))
    elif console.is_terminal:
        console.print(_table(plan))
    else:
        click.echo(plan.to_table())
    click.echo(str(plan).splitlines()[0])
    click.echo(f"plan {plan.hash}")


@contextmanager
def progress(*, as_json: bool) -> Iterator[Callable[[int, int], None] | None]:
    """Show a bar on a terminal, a line now and then elsewhere; nothing beside JSON."""
    if as_json:
        yield None
        return
    with progress_bar(Console(), "values") as advance:
        yield lambda done, total: advance(done, total, "")


def print_report(report: BackfillReport, *, as_json: bool) -> None:
    """Print what became of the values, and each that is not there."""
    if as_json:
        counts = {
            name: len(value) if isinstance(value, list) else value
            for name, value in asdict(report).items()
        }
        click.echo(json.dumps({"report": counts}))
        return
    for what, values in (
        ("skipped", report.left),
        ("conflict", report.conflicts),
        ("refused", report.failed),
        ("not sent", report.not_sent),
        ("not verified", report.unverified),
        ("owed to another writer", report.owed),
    ):
        _print_values(what, values)
    click.echo(str(report))


def _print_values(what: str, values: list[PlannedValue]) -> None:
    for value in values[:MAX_SHOWN]:
        reason = f" ({value.reason})" if value.reason else ""
        click.secho(f"{what}: {value}{reason}", fg="red")
    if len(values) > MAX_SHOWN:
        click.echo(f"  ... and {len(values) - MAX_SHOWN:,} more")


def _table(plan: BackfillPlan) -> Table:
    table = Table(*COLUMNS)
    for value in plan.values[:MAX_SHOWN]:
        cells = [str(getattr(value, name) or "") for name in COLUMNS]
        # Texts of others are no markup: a "[" of theirs must stay one.
        table.add_row(*map(escape, cells), style=_ACTION_STYLES[value.action])
    if len(plan.values) > MAX_SHOWN:
        table.caption = f"and {len(plan.values) - MAX_SHOWN:,} more"
    return table
