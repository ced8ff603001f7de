"""`wb-ops backfill`: plan, apply, undo and list."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import reduce
from operator import and_
from pathlib import Path
from typing import Any

import click

from wb_ops.backfill import (
    BackfillPlan,
    BackfillRecord,
    BackfillRequest,
    execute_backfill,
    list_backfills,
    parse_recipe,
    plan_backfill,
)
from wb_ops.cli.backfill_output import print_plan, print_report, progress
from wb_ops.cli.failures import exits_with_advice
from wb_ops.cli.options import parse_filters, project_of, warehouse_of
from wb_ops.client.api import Api
from wb_ops.errors import InvalidRequest, WbOpsError
from wb_ops.warehouse import Warehouse, chosen_dataset

Options = dict[str, Any]

_WHERE = (
    click.argument("path", metavar="ENTITY/PROJECT"),
    click.option(
        "--warehouse", "url", required=True, help="It keeps the journal: duckdb:///wandb.duckdb."
    ),
    click.option("--dataset", help="Its schema; by default named after the project."),
    click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line."),
)
_WHAT = (
    click.option("--sql", help="A SELECT of run_id and a column for each key."),
    click.option("--file", help="A CSV or parquet file with such columns, or a .sql file."),
    click.option(
        "--recipe",
        multiple=True,
        help="""Such as 'best("val_acc", also=["loss"])'; may be given several times.""",
    ),
    click.option("--resume", metavar="ID", help="Finish a backfill that was killed."),
    click.option(
        "--target",
        type=click.Choice(["summary", "config", "tags", "notes"]),
        default="summary",
        show_default=True,
    ),
    click.option(
        "--policy",
        type=click.Choice(["overwrite", "only_missing", "overwrite_if_older"]),
        default="overwrite",
        show_default=True,
    ),
    click.option("--journal", help="Another warehouse that keeps the journal."),
    click.option("--filters", help='Which runs, as JSON: \'{"state": "finished"}\'.'),
    click.option("--include-running", is_flag=True, help="Also runs that still log."),
    click.option(
        "--include-incomplete",
        is_flag=True,
        help="Also runs whose history is incomplete or, in the warehouse, older than the run.",
    ),
)
_WRITE = (
    click.option("--yes", is_flag=True, help="Do not ask; needed where there is no terminal."),
    click.option("--max-changes", type=click.IntRange(0), help="Refuse to write more values."),
    click.option("--safe", is_flag=True, help="One run at a time."),
)

# What a plan was made of -> the value of an option that was not given.
_PLANNED: Options = {
    "sql": None, "file": None, "recipe": (), "resume": None, "target": "summary",
    "policy": "overwrite", "filters": None, "include_running": False,
    "include_incomplete": False,
}  # fmt: skip


def _with(*decorators: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda command: reduce(lambda done, one: one(done), reversed(decorators), command)


@click.group()
def backfill() -> None:
    """Write computed values back into runs, with a journal and an undo."""


@backfill.command()
@_with(*_WHERE, *_WHAT)
@click.option("--diff", is_flag=True, help="Print a diff instead of a table.")
@click.option("--out", type=click.Path(path_type=Path), help="Write all values to a .csv or .json.")
@exits_with_advice
def plan(
    path: str, url: str, dataset: str | None, as_json: bool, diff: bool, out: Path | None,
    journal: str | None, **what: Any,
) -> None:  # fmt: skip
    """Show what would be written; write nothing.

    Example: wb-ops backfill plan my-team/my-project --warehouse duckdb:///wandb.duckdb
    --recipe 'best("val_acc")'
    """
    if out is not None and out.suffix not in (".csv", ".json"):
        raise InvalidRequest(f"--out {out}: give a name that ends in .csv or .json.")
    with Api() as api:
        warehouse, kept = _connected(url, journal)
        planned = plan_backfill(_request(api, path, dataset, what), api, warehouse, kept)
    if out is not None:
        out.write_text(planned.to_csv() if out.suffix == ".csv" else planned.to_json())
    print_plan(planned, as_json=as_json, diff=diff)


@backfill.command()
@_with(*_WHERE, *_WHAT, *_WRITE)
@click.option("--plan", "plan_file", metavar="FILE", help="Write what `plan --out x.json` showed.")
@click.option("--expect", metavar="HASH", help="Refuse a plan that is not the one shown before.")
@exits_with_advice
def apply(
    path: str, url: str, dataset: str | None, as_json: bool, yes: bool, expect: str | None,
    plan_file: str | None, journal: str | None, **what: Any,
) -> None:  # fmt: skip
    """Plan (or take a stored plan), ask, write, read back.

    Example: wb-ops backfill apply my-team/my-project --warehouse duckdb:///wandb.duckdb
    --recipe 'best("val_acc", also=["loss"])' --yes
    """
    warehouse, kept = _connected(url, journal)
    with Api() as api:
        if plan_file is not None:
            planned = _stored_plan(plan_file, api.source(path).path, dataset, what)
        else:
            planned = plan_backfill(_request(api, path, dataset, what), api, warehouse, kept)
        if expect is not None and planned.hash != expect:
            raise InvalidRequest(
                f"The plan is {planned.hash} now, not {expect}: look at it again. "
                "Nothing was written."
            )
        _execute(planned, api, kept, as_json=as_json, yes=yes)


@backfill.command()
@_with(*_WHERE, *_WRITE)
@click.argument("backfill_id", metavar="ID")
@click.option("--include-running", is_flag=True, help="Also runs that still log.")
@click.option("--dry-run", is_flag=True, help="Show what would come back; write nothing.")
@exits_with_advice
def undo(
    path: str, url: str, dataset: str | None, as_json: bool, yes: bool, backfill_id: str,
    dry_run: bool, **what: Any,
) -> None:  # fmt: skip
    """Put back what a backfill replaced, where its values are still there.

    Example: wb-ops backfill undo my-team/my-project bf-... --warehouse duckdb:///wandb.duckdb
    """
    warehouse = warehouse_of("--warehouse", url)
    with Api() as api:
        request = _request(api, path, dataset, {**what, "undo": backfill_id})
        planned = plan_backfill(request, api, warehouse)
        if dry_run:
            print_plan(planned, as_json=as_json, diff=False)
            return
        _execute(planned, api, warehouse, as_json=as_json, yes=yes)


@backfill.command("list")
@_with(*_WHERE)
@exits_with_advice
def list_(path: str, url: str, dataset: str | None, as_json: bool) -> None:
    """Show the backfills of a project, the newest first; asks W&B nothing."""
    name = chosen_dataset(dataset, *project_of(path))
    for record in list_backfills(warehouse_of("--warehouse", url), name):
        click.echo(json.dumps(asdict(record), default=str) if as_json else _line(record))


def _connected(url: str, journal: str | None) -> tuple[Warehouse, Warehouse]:
    """The warehouse, and the one that keeps the journal: most often the same."""
    warehouse = warehouse_of("--warehouse", url)
    return warehouse, warehouse_of("--journal", journal) if journal else warehouse


def _request(api: Api, path: str, dataset: str | None, what: Options) -> BackfillRequest:
    source = api.source(path)
    what = dict(what)
    recipes = [parse_recipe(text) for text in what.pop("recipe", ())]
    file = what.pop("file", None)
    if file is not None and file.endswith(".sql"):
        if what.get("sql") is not None:
            raise InvalidRequest("Give --sql or a .sql file, not both.")
        what["sql"], file = _read(file), None
    return BackfillRequest(
        entity=source.entity,
        project=source.project,
        dataset=dataset,
        file=file,
        compute=reduce(and_, recipes) if recipes else None,
        filters=parse_filters(what.pop("filters", None)),
        **what,
    )


def _stored_plan(file: str, path: str, dataset: str | None, what: Options) -> BackfillPlan:
    """The plan of a file; of the options only those that say how it is written count."""
    planned = BackfillPlan.from_json(_read(file, "--plan"))
    if str(planned.request.owner) != path:
        raise InvalidRequest(f"--plan {file} is of {planned.request.owner}, not of {path}.")
    held = planned.request.dataset_name
    if dataset is not None and replace(planned.request, dataset=dataset).dataset_name != held:
        raise InvalidRequest(f"--plan {file} is of dataset {held!r}, not {dataset!r}.")
    if given := [name for name, default in _PLANNED.items() if what[name] != default]:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise InvalidRequest(f"--plan {file} has its values already: leave out {options}.")
    limit = planned.request.max_changes if what["max_changes"] is None else what["max_changes"]
    safe = what["safe"] or planned.request.safe
    return replace(planned, request=replace(planned.request, safe=safe, max_changes=limit))


def _execute(
    planned: BackfillPlan, api: Api, warehouse: Warehouse, *, as_json: bool, yes: bool
) -> None:
    print_plan(planned, as_json=as_json, diff=True)
    if planned.to_set and not yes:
        if as_json or not sys.stdin.isatty():
            raise InvalidRequest("Nothing was written: give --yes to write without being asked.")
        click.confirm(f"Write {len(planned.to_set):,} values?", abort=True)
    try:
        with progress(as_json=as_json) as on_progress:
            report = execute_backfill(planned, api, warehouse, on_progress)
    except WbOpsError as error:
        if error.report is not None:
            print_report(error.report, as_json=as_json)
        raise
    print_report(report, as_json=as_json)


def _line(record: BackfillRecord) -> str:
    counts = ", ".join(f"{count} {event}" for event, count in record.counts.items())
    state = "" if record.is_finished else f"; unfinished: apply --resume {record.backfill_id}"
    undone = f"; undo of {record.undo_of}" if record.undo_of else ""
    return (
        f"{record.backfill_id}  {record.started_at:%Y-%m-%d %H:%M:%S}  {record.target}  "
        f"{record.runs} runs: {counts}{undone}{state}"
    )


def _read(file: str, option: str = "--file") -> str:
    try:
        return Path(file).read_text()
    except (OSError, UnicodeDecodeError) as exc:
        raise InvalidRequest(f"{option} {file} cannot be read: {exc}.") from exc
