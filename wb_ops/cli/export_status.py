"""What a warehouse holds of each project, from its own records."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import chain, combinations, product
from typing import Any

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from wb_ops.cli.options import project_of
from wb_ops.errors import InvalidRequest
from wb_ops.export import ExportRequest
from wb_ops.export.request import TABLE_NAMES
from wb_ops.warehouse import Warehouse, chosen_dataset

MAX_INCOMPLETE = 20
_RECORDS = ("_wb_state", "_wb_loads", "_wb_receipts")

Status = dict[str, Any]


def show_status(
    warehouse: Warehouse, path: str | None, dataset: str | None, *, as_json: bool
) -> None:
    """Print the state of one dataset, or of all."""
    known = _datasets(warehouse)
    names = known
    if path is not None:
        names = [chosen_dataset(dataset, *project_of(path))]
    elif dataset is not None:
        names = [dataset.lower()]
    if missing := set(names) - set(known):
        held = ", ".join(known) or "none"
        raise InvalidRequest(f"{warehouse.url} holds no dataset {missing.pop()}; it holds {held}.")
    statuses = [dataset_status(warehouse, name, datetime.now(UTC)) for name in names]
    if as_json:
        for one in statuses:
            click.echo(json.dumps(one, default=str))
        return
    if not statuses:
        click.echo(f"{warehouse.url} holds no project yet.")
    for one in statuses:
        _print(one)


def dataset_status(warehouse: Warehouse, dataset: str, now: datetime) -> Status:
    """What one dataset holds, how old it is, and which runs are not complete.

    `lag_s` is the time since the listing at `checked_at`: what W&B got since is not there. Where
    the whole project is listed, it is that of the table that is furthest behind, else that of the
    part that is. `scopes` has each of them: one per choice of runs, metrics and tables.
    """
    tables = warehouse.read_tables(dataset, _RECORDS)
    state, loads, receipts = (tables[name].to_pylist() for name in _RECORDS)
    histories = [one for one in receipts if one["table_name"] == "history"]
    scopes = _scopes(state, loads, now)
    checked = _checked_at(scopes)
    last = max(loads, key=lambda load: load["started_at"], default=None)
    bad = [one for one in receipts if one["status"] in ("failed", "unexplained")]
    return {
        "dataset": dataset,
        "projects": sorted({f"{row['entity']}/{row['project']}" for row in state}),
        "runs": len({one["run_id"] for one in receipts if one["table_name"] == "runs"}),
        "deleted": sum(
            one["status"] == "deleted" for one in receipts if one["table_name"] == "runs"
        ),
        "history_rows": sum(one["distinct_steps"] or 0 for one in histories),
        "histories": dict(sorted(Counter(one["status"] for one in histories).items())),
        "scopes": scopes,
        "checked_at": checked,
        "lag_s": _seconds_since(checked, now),
        "last_load": last and {name: last[name] for name in ("load_id", "status", "finished_at")},
        "incomplete": [
            {name: one[name] for name in ("run_id", "table_name", "status", "note")} for one in bad
        ],
    }


def _scopes(
    state: Sequence[dict[str, Any]], loads: Sequence[dict[str, Any]], now: datetime
) -> list[Status]:
    """Each scope's marks and last load; those of the whole project first."""
    ended: dict[str, datetime] = {}
    for load in loads:
        if load["status"] in ("complete", "incomplete"):
            scope, finished_at = load["scope"], load["finished_at"]
            ended[scope] = max(ended.get(scope, finished_at), finished_at)
    whole = _whole_scopes()
    scopes = [
        {
            "scope": row["scope"],
            "tables": whole.get(row["scope"]),
            "watermark": row["watermark"],
            "reconciled_at": row["reconciled_at"],
            "checked_at": row["updated_at"],
            "lag_s": _seconds_since(row["updated_at"], now),
            "loaded_at": ended.get(row["scope"]),
        }
        for row in state
        # Without a scope is the row that a backfill made.
        if row["scope"]
    ]
    return sorted(scopes, key=lambda one: (one["tables"] is None, one["scope"]))


def _whole_scopes() -> dict[str, list[str]]:
    """The scopes of a whole project, with all runs and metrics -> the tables that each writes."""
    chosen = chain.from_iterable(
        combinations(TABLE_NAMES, size) for size in range(len(TABLE_NAMES) + 1)
    )
    scopes = {}
    for tables, redacts in product(chosen, (False, True)):
        request = ExportRequest("any", "any", tables=tables, redact_secrets=redacts)
        scopes[request.scope] = [name for name in TABLE_NAMES if name in ("runs", *tables)]
    return scopes


def _checked_at(scopes: Sequence[Status]) -> datetime | None:
    """The listing up to which all that is held was looked at; None without any."""
    whole: dict[str, datetime] = {}
    parts: list[datetime] = []
    for one in scopes:
        listed_at = one["checked_at"]
        if listed_at is None:
            continue
        if one["tables"] is None:
            parts.append(listed_at)
        for name in one["tables"] or ():
            whole[name] = max(whole.get(name, listed_at), listed_at)
    return min(whole.values() or parts, default=None)


def _seconds_since(moment: datetime | None, now: datetime) -> float | None:
    return None if moment is None else round((now - moment).total_seconds(), 1)


def _datasets(warehouse: Warehouse) -> list[str]:
    sql = (
        "select distinct table_schema as name from information_schema.tables "
        "where table_name = '_wb_state' order by 1"
    )
    return [str(name) for name in warehouse.query(sql)["name"].to_pylist()]


def _print(status: Status) -> None:
    now = datetime.now(UTC)
    histories = ", ".join(f"{count} {name}" for name, count in status["histories"].items())
    gone = f" ({status['deleted']} deleted)" if status["deleted"] else ""
    last = status["last_load"]
    load = f"{last['load_id']} {last['status']}{_ago(last['finished_at'], now)}" if last else "none"
    click.echo(
        f"{status['dataset']}: {', '.join(status['projects'])}\n"
        f"  {status['runs']} runs{gone}, {status['history_rows']:,} history rows\n"
        f"  histories: {histories or 'none'}\n"
        f"  last load: {load}"
    )
    for scope in status["scopes"]:
        click.echo(f"  {_scope_line(scope, now)}")
    if status["incomplete"]:
        Console().print(_incomplete(status["incomplete"]))


def _scope_line(scope: Status, now: datetime) -> str:
    tables = scope["tables"]
    name = ", ".join(tables) if tables else f"some runs, metrics or states ({scope['scope']})"
    if scope["checked_at"] is None:
        last = _ago(scope["loaded_at"], now)
        return f"{name}: only windows or single runs, {f'the last{last}' if last else 'unfinished'}"
    compared = _ago(scope["reconciled_at"], now) or " never"
    return (
        f"{name}: listed{_ago(scope['checked_at'], now)}, compared as a whole{compared}, "
        f"watermark {scope['watermark'] or 'none'}"
    )


def _incomplete(rows: list[dict[str, Any]]) -> Table:
    table = Table(title="incomplete", title_justify="left")
    for name in ("run", "table", "status", "note"):
        table.add_column(name)
    for row in rows[:MAX_INCOMPLETE]:
        # Texts of others are no markup.
        table.add_row(*(escape(str(value or "")) for value in row.values()))
    if len(rows) > MAX_INCOMPLETE:
        table.caption = f"and {len(rows) - MAX_INCOMPLETE} more, in _wb_receipts"
    return table


def _ago(moment: datetime | None, now: datetime) -> str:
    """How long ago, in words; nothing where it has not been."""
    if moment is None:
        return ""
    seconds = (now - moment).total_seconds()
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f" {seconds / size:.0f} {unit} ago"
    return f" {seconds:.0f} s ago"
