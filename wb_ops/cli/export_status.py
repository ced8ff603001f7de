"""What a warehouse holds of each project, from its own records."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from wb_ops.cli.options import project_of
from wb_ops.errors import InvalidRequest
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

    `lag_s` is the time since the last listing: what W&B got since is not there.
    """
    tables = warehouse.read_tables(dataset, _RECORDS)
    state, loads, receipts = (tables[name].to_pylist() for name in _RECORDS)
    histories = [one for one in receipts if one["table_name"] == "history"]
    checked = max((row["updated_at"] for row in state if row["updated_at"]), default=None)
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
        "watermark": max((row["watermark"] for row in state if row["watermark"]), default=None),
        "checked_at": checked,
        "lag_s": None if checked is None else round((now - checked).total_seconds(), 1),
        "last_load": last and {name: last[name] for name in ("load_id", "status", "finished_at")},
        "incomplete": [
            {name: one[name] for name in ("run_id", "table_name", "status", "note")} for one in bad
        ],
    }


def _datasets(warehouse: Warehouse) -> list[str]:
    sql = (
        "select distinct table_schema as name from information_schema.tables "
        "where table_name = '_wb_state' order by 1"
    )
    return [str(name) for name in warehouse.query(sql)["name"].to_pylist()]


def _print(status: Status) -> None:
    histories = ", ".join(f"{count} {name}" for name, count in status["histories"].items())
    gone = f" ({status['deleted']} deleted)" if status["deleted"] else ""
    lag = "never listed" if status["lag_s"] is None else f"listed {_ago(status['lag_s'])} ago"
    last = status["last_load"]
    load = f"{last['load_id']} {last['status']}" if last else "none"
    click.echo(
        f"{status['dataset']}: {', '.join(status['projects'])}\n"
        f"  {status['runs']} runs{gone}, {status['history_rows']:,} history rows\n"
        f"  histories: {histories or 'none'}\n"
        f"  {lag}, watermark {status['watermark'] or 'none'}\n"
        f"  last load: {load}"
    )
    if status["incomplete"]:
        Console().print(_incomplete(status["incomplete"]))


def _incomplete(rows: list[dict[str, Any]]) -> Table:
    table = Table(title="incomplete", title_justify="left")
    for name in ("run", "table", "status", "note"):
        table.add_column(name)
    for row in rows[:MAX_INCOMPLETE]:
        table.add_row(*(str(value or "") for value in row.values()))
    if len(rows) > MAX_INCOMPLETE:
        table.caption = f"and {len(rows) - MAX_INCOMPLETE} more, in _wb_receipts"
    return table


def _ago(seconds: float) -> str:
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
