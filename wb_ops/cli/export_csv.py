"""Runs as CSV, for a table that fits into a spreadsheet."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TypeVar
from uuid import uuid4

import click
import pyarrow as pa
from rich.console import Console

from wb_ops.cli.progress import progress_bar
from wb_ops.client.api import Api
from wb_ops.client.runs import Runs
from wb_ops.errors import InvalidRequest, WarehouseRefused
from wb_ops.export import ExportRequest
from wb_ops.export.listing import whole_filters
from wb_ops.tables.secrets import redacted

T = TypeVar("T")


def write_csv(request: ExportRequest, api: Api, target: Path) -> None:
    """Write `target`, a .csv file of runs: name, config without `_` keys, summary.

    Any other name is a folder: `runs.csv`, and each run's whole history in `history/RUN_ID.csv`.
    Config and summary are JSON. Source: the guide "Export data" in W&B's documentation.

    Raises:
        InvalidRequest: the target is a folder that ends in .csv, or keys are given for a file,
            which has no metrics (retry: never).
        WarehouseRefused: it cannot be written (retry: never).
    """
    is_file = target.suffix.lower() == ".csv"
    if is_file and target.is_dir():
        raise InvalidRequest(f"--csv {target} is a folder: give a file, or a name without .csv.")
    if is_file and request.keys:
        raise InvalidRequest(
            f"--keys cannot stand beside --csv {target}, which has no metrics: leave it out, or "
            "give --csv a name without .csv, a folder with the histories."
        )
    runs = api.runs(str(request.owner), whole_filters(request) or None, per_page=1000)
    try:
        if not is_file:
            # A folder of their own: a run's id may be "runs".
            (target / "history").mkdir(parents=True, exist_ok=True)
        table = target if is_file else target / "runs.csv"
        count = _replace(table, partial(_write_runs, request, runs))
        if not is_file:
            _write_histories(request, runs, count, target / "history")
    except OSError as exc:
        # Not the name in it, which is that of a file on the way.
        why = exc.strerror or exc
        raise WarehouseRefused(f"--csv {target} cannot be written: {why}.", exc) from exc
    click.echo(f"{count} runs written to {target}")


def _write_histories(request: ExportRequest, runs: Runs, count: int, folder: Path) -> None:
    with progress_bar(Console(), "histories") as advance:
        for done, run in enumerate(runs, start=1):
            table = run.history_table(keys=request.keys)
            if request.redact_secrets:
                table = _without_secrets(table)
            write = partial(table.to_pandas().to_csv, index=False)
            _replace(folder / f"{run.id}.csv", write)
            advance(done, count, f"{table.num_rows:,} rows in {run.id}")


def _replace(path: Path, write: Callable[[Path], T]) -> T:
    """Write a file in whole: one that is there stays as it is until the new one is complete."""
    new = path.with_name(f".{uuid4().hex}.partial")
    try:
        result = write(new)
        os.replace(new, path)
        return result
    finally:
        with suppress(FileNotFoundError):
            new.unlink()


def _without_secrets(table: pa.Table) -> pa.Table:
    """Take what looks like a secret out of every column that holds more than numbers."""
    for index, field in enumerate(table.schema):
        if pa.types.is_integer(field.type) or pa.types.is_floating(field.type):
            continue
        cells = [redacted(cell, field.name) for cell in table[index].to_pylist()]
        table = table.set_column(index, field.name, pa.array(cells, field.type))
    return table


def _write_runs(request: ExportRequest, runs: Runs, path: Path) -> int:
    count = 0
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("name", "config", "summary"))
        for run in runs:
            config = {key: value for key, value in run.config.items() if key[:1] != "_"}
            documents = [config, dict(run.summary._json_dict)]
            if request.redact_secrets:
                documents = [redacted(one) for one in documents]
            texts = [json.dumps(one, ensure_ascii=False) for one in documents]
            writer.writerow((run.name, *texts))
            count += 1
    return count
