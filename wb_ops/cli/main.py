"""Commands and their options."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import click

import wb_ops
from wb_ops.cli.backfill import backfill
from wb_ops.cli.failures import exits_with_advice
from wb_ops.cli.options import parse_filters
from wb_ops.cli.output import Output
from wb_ops.client.api import Api
from wb_ops.errors import InvalidRequest
from wb_ops.export import ExportRequest, execute_export, plan_export
from wb_ops.warehouse import connect


@click.group()
@click.version_option(wb_ops.__version__, prog_name="wb-ops")
def cli() -> None:
    """Weights & Biases run data into a warehouse and back.

    The API key comes from WANDB_API_KEY, netrc or `wandb login`; the server from WANDB_BASE_URL.
    """


@cli.command()
@click.argument("path", metavar="ENTITY/PROJECT")
@click.option("--to", "url", required=True, help="Warehouse, such as duckdb:///wandb.duckdb.")
@click.option("--dataset", help="Schema to write; by default named after the project.")
@click.option(
    "--mode",
    type=click.Choice(["incremental", "reconcile", "full"]),
    default="incremental",
    show_default=True,
    help="What may have changed; the whole listing compared; or everything read again.",
)
@click.option("--filters", help='Which runs, as JSON: \'{"state": "finished"}\'.')
@click.option("--keys", help="Metrics to export, separated by commas; all by default.")
@click.option("--since", help="Only runs created at or after this time (ISO, UTC).")
@click.option("--until", help="Only runs created before this time (ISO, UTC).")
@click.option(
    "--on-incomplete",
    type=click.Choice(["mark", "fail"]),
    default="mark",
    show_default=True,
    help="Whether runs that do not add up fail the command, after the rest is committed.",
)
@click.option("--workers", type=click.IntRange(1), default=8, show_default=True)
@click.option("--dry-run", is_flag=True, help="Print the plan and write nothing.")
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print JSON, one object a line: the plan, then the report.",
)
@exits_with_advice
def export(
    path: str,
    url: str,
    dataset: str | None,
    mode: Any,
    filters: str | None,
    keys: str | None,
    since: str | None,
    until: str | None,
    on_incomplete: Any,
    workers: int,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Export runs and their full history into a warehouse.

    A second call reads only what has changed since the first.

    Example: wb-ops export my-team/my-project --to duckdb:///wandb.duckdb
    """
    output = Output(as_json=as_json)
    warehouse = connect(url)
    with Api() as api:
        source = api.source(path)
        request = ExportRequest(
            entity=source.entity,
            project=source.project,
            dataset=dataset,
            mode=mode,
            filters=parse_filters(filters),
            keys=_keys(keys),
            since=_moment("--since", since),
            until=_moment("--until", until),
            on_incomplete=on_incomplete,
            max_workers=workers,
        )
        plan = plan_export(request, api, warehouse)
        output.plan(plan)
        if not dry_run:
            with output.progress() as on_progress:
                report = execute_export(plan, api, warehouse, on_progress)
            output.report(report)


@cli.command()
@click.option("--port", default=0, show_default=True, help="0 takes a free port.")
@click.option("--db", default=":memory:", help="SQLite file that keeps the data.")
def devserver(port: int, db: str) -> None:
    """Serve a W&B-compatible API on 127.0.0.1, for tests and trials, until interrupted."""
    try:
        from wb_ops.devserver.__main__ import serve
    except ModuleNotFoundError as exc:
        raise click.ClickException(
            f"{exc.name} is missing: pip install 'wb-ops[devserver]'"
        ) from exc
    serve(port=port, path=db)


def _keys(text: str | None) -> tuple[str, ...] | None:
    keys = tuple(key.strip() for key in (text or "").split(",") if key.strip())
    if text is not None and not keys:
        raise InvalidRequest(f"--keys {text!r} names no metric: give names, or leave it out.")
    return keys or None


cli.add_command(backfill)


def _moment(option: str, text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as exc:
        raise InvalidRequest(
            f"{option} {text!r} is no ISO time, such as 2026-01-31T12:00:00Z."
        ) from exc
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
