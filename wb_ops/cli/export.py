"""`wb-ops export`: a project into a warehouse, or into CSV files; and what a warehouse holds."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from wb_ops.cli.export_csv import write_csv
from wb_ops.cli.export_output import Output
from wb_ops.cli.export_status import show_status
from wb_ops.cli.failures import exits_with_advice
from wb_ops.cli.options import parse_filters, warehouse_of
from wb_ops.client.api import Api
from wb_ops.errors import ExportIncomplete, InvalidRequest
from wb_ops.export import ExportRequest, execute_export, plan_export

_PROJECT = "project"
_NOT_OF_CSV = ("dataset", "mode", "tables", "on_incomplete", "dry_run", "as_json", "workers")


class _ProjectOrCommand(click.Group):
    """`wb-ops export ENTITY/PROJECT` is a command, and so is `wb-ops export status`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or args[0] not in self.commands:
            args = [_PROJECT, *args]
        return super().parse_args(ctx, args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name, command, rest = super().resolve_command(ctx, args)
        # Its name is nothing that people type: usage and errors leave it out.
        return "" if name == _PROJECT else name, command, rest


class _UnnamedContext(click.Context):
    @property
    def command_path(self) -> str:
        return super().command_path.rstrip()


class _Unnamed(click.Command):
    context_class = _UnnamedContext


@click.group(cls=_ProjectOrCommand)
def export() -> None:
    """Export runs and their full history into a warehouse."""


@export.command(_PROJECT, cls=_Unnamed, hidden=True)
@click.argument("path", metavar="ENTITY/PROJECT")
@click.option("--to", "url", help="Warehouse, such as duckdb:///wandb.duckdb.")
@click.option(
    "--csv",
    type=click.Path(path_type=Path),
    help="Instead: runs (name, config, summary) into a .csv file, or with histories into a folder "
    "(runs.csv, history/RUN_ID.csv).",
)
@click.option("--dataset", help="Schema to write; by default named after the project.")
@click.option(
    "--mode",
    type=click.Choice(["incremental", "reconcile", "full"]),
    default="incremental",
    show_default=True,
    help="What may have changed; the whole listing compared; or everything read again.",
)
@click.option("--filters", help='Which runs, as JSON: \'{"state": "finished"}\'.')
@click.option("--states", help="Only runs in these states, separated by commas.")
@click.option("--keys", help="Metrics to export, separated by commas; all by default.")
@click.option(
    "--tables",
    default="runs,history",
    show_default=True,
    help="Any of runs, history, system_metrics.",
)
@click.option("--since", help="Only runs created at or after this time (ISO, UTC).")
@click.option("--until", help="Only runs created before this time (ISO, UTC).")
@click.option(
    "--on-incomplete",
    type=click.Choice(["mark", "fail"]),
    default="mark",
    show_default=True,
    help="Whether runs that do not add up fail the command, after the rest is committed.",
)
@click.option(
    "--redact-secrets", is_flag=True, help="Store what looks like a key or token as [redacted]."
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
def project(
    path: str, url: str | None, csv: Path | None, dry_run: bool, as_json: bool, **what: Any
) -> None:
    """Export runs and their full history into a warehouse.

    A second call reads only what has changed since the first. `wb-ops export status --to URL`
    shows what a warehouse holds.

    Example: wb-ops export my-team/my-project --to duckdb:///wandb.duckdb
    """
    if (url is None) == (csv is None):
        raise InvalidRequest("Give --to WAREHOUSE or --csv FILE, one of them.")
    if csv is not None:
        _refuse_beside_csv(click.get_current_context())
    output = Output(as_json=as_json)
    with Api() as api:
        request = _request(api, path, what)
        if csv is not None:
            write_csv(request, api, csv)
            return
        warehouse = warehouse_of("--to", url or "")
        plan = plan_export(request, api, warehouse)
        output.plan(plan)
        if not dry_run:
            try:
                with output.progress(api.transport.budget) as on_progress:
                    report = execute_export(plan, api, warehouse, on_progress)
            except ExportIncomplete as error:
                output.report(error.report)
                raise
            output.report(report)


@export.command()
@click.argument("path", metavar="[ENTITY/PROJECT]", required=False)
@click.option("--to", "url", required=True, help="Warehouse, such as duckdb:///wandb.duckdb.")
@click.option("--dataset", help="Only this schema; by default all that hold a project.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object for each dataset.")
@exits_with_advice
def status(path: str | None, url: str, dataset: str | None, as_json: bool) -> None:
    """Show what a warehouse holds, how far behind it is, and which runs are incomplete.

    W&B is not asked.

    Example: wb-ops export status --to duckdb:///wandb.duckdb
    """
    show_status(warehouse_of("--to", url), path, dataset, as_json=as_json)


def _refuse_beside_csv(context: click.Context) -> None:
    """Options that --csv would pass over: who gives them expects something else."""
    given = [
        next(name for name in parameter.opts if name.startswith("--"))
        for parameter in context.command.params
        if parameter.name in _NOT_OF_CSV
        and context.get_parameter_source(str(parameter.name)) is not ParameterSource.DEFAULT
    ]
    if given:
        raise InvalidRequest(
            f"{', '.join(given)} cannot stand beside --csv, which only writes files: leave it "
            "out, or give --to WAREHOUSE."
        )


def _request(api: Api, path: str, what: dict[str, Any]) -> ExportRequest:
    source = api.source(path)
    return ExportRequest(
        entity=source.entity,
        project=source.project,
        dataset=what["dataset"],
        mode=what["mode"],
        filters=parse_filters(what["filters"]),
        keys=_names("--keys", what["keys"]),
        tables=_names("--tables", what["tables"]) or (),
        states=_names("--states", what["states"]),
        since=_moment("--since", what["since"]),
        until=_moment("--until", what["until"]),
        on_incomplete=what["on_incomplete"],
        redact_secrets=what["redact_secrets"],
        max_workers=what["workers"],
    )


def _names(option: str, text: str | None) -> tuple[str, ...] | None:
    names = tuple(name.strip() for name in (text or "").split(",") if name.strip())
    if text is not None and not names:
        raise InvalidRequest(f"{option} {text!r} names nothing: give names, or leave it out.")
    return names or None


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
