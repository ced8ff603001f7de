"""What the destination holds of finished loads, read back as the state of an export."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from functools import wraps
from typing import Any

import pyarrow as pa
from dlt.common.configuration.container import Container
from dlt.common.destination.exceptions import (
    DestinationUndefinedEntity,
    SqlClientNotAvailable,
)
from dlt.common.pipeline import PipelineContext
from dlt.common.storages.load_package import LoadPackageStateInjectableContext

from wb_ops.dlt.proof import BY_RUN, ROWS, Found, find_damaged, is_whole
from wb_ops.errors import WarehouseRefused
from wb_ops.tables.schemas import RUNS, TABLES

log = logging.getLogger("wb_ops")

_STATE = ("_wb_columns", "_wb_receipts", "_wb_state")
_TABLES = {**TABLES, ROWS.name: ROWS}
# Whatever such a receipt stood for, its run is read again.
_DAMAGED = {"status": "failed", "fingerprint": ""}
IDS_PER_QUERY = 500


def package_id() -> str | None:
    """The id of the load package that is being extracted; None outside of a pipeline."""
    container = Container()
    if LoadPackageStateInjectableContext not in container:
        return None
    return str(container[LoadPackageStateInjectableContext].load_id)


def read_loaded() -> dict[str, pa.Table]:
    """Read columns, receipts and state that the destination has.

    Receipts and state count only if dlt has recorded their load as finished, and if the rows that
    it gave are there: the tables of a load arrive one by one, and loads can meet. Where nothing
    can be read, nothing is known, and everything is read anew.

    Raises:
        WarehouseRefused: two loads at a time gave one column to two metrics (retry: never).
    """
    empty = {name: TABLES[name].schema.empty_table() for name in _STATE}
    pipeline = _pipeline()
    if pipeline is None or pipeline.destination is None:
        return empty
    try:
        with pipeline.sql_client() as client:
            loads = {row["load_id"] for row in _rows(client, "_dlt_loads") if not row["status"]}
            loaded = {name: _read(client, name, loads) for name in (*_STATE, ROWS.name)}
            _check_columns(loaded["_wb_columns"], pipeline.dataset_name)
            # Without a merge nothing is staged: each load only adds files of its own.
            if "delete-insert" in (client.capabilities.supported_merge_strategies or ()):
                _distrust(loaded, _count(client), loads)
    except DestinationUndefinedEntity:
        return empty  # the first load
    except SqlClientNotAvailable:
        log.warning("this destination cannot be read back: every load reads all runs again")
        return empty
    return {name: pa.Table.from_pylist(loaded[name], schema=TABLES[name].schema) for name in _STATE}


def read_moments() -> pa.Table:
    """Read id and creation of the runs that the destination holds; other columns are null.

    To be asked only where `read_loaded` has found receipts.
    """
    with _pipeline().sql_client() as client:
        found = _rows(client, "runs", columns=("run_id", "created_at"))
        rows = {row["run_id"]: row for row in found}
    return pa.Table.from_pylist(list(rows.values()), schema=RUNS)


def read_runs(run_ids: Sequence[str]) -> pa.Table:
    """Read the newest row of each of these runs that the destination holds."""
    rows: dict[str, dict[str, Any]] = {}
    with _pipeline().sql_client() as client:
        for at in range(0, len(run_ids), IDS_PER_QUERY):
            found = list(_rows(client, "runs", run_ids=run_ids[at : at + IDS_PER_QUERY]))
            rows |= {row["run_id"]: row for row in sorted(found, key=lambda row: row["_load_id"])}
    texts = {run_id: json.loads(row["tags"] or "[]") for run_id, row in rows.items()}
    values = [{**row, "tags": texts[run_id]} for run_id, row in rows.items()]
    return pa.Table.from_pylist(values, schema=RUNS)


def raise_after_load(error: Exception) -> None:
    """Let the pipeline load what was extracted, and raise `error` at the end of that.

    dlt throws a package away whose extraction fails, and asks nobody after a load.
    """
    pipeline = _pipeline()
    if pipeline is None:
        raise error
    load: Callable[..., Any] = pipeline.load

    @wraps(load)
    def load_and_raise(*args: Any, **options: Any) -> None:
        del pipeline.load  # the class's own one is back for the next load
        load(*args, **options)
        raise error

    pipeline.load = load_and_raise


def _pipeline() -> Any:
    """The pipeline at work; None outside of one."""
    context = Container()[PipelineContext]
    return context.pipeline() if context.is_active() else None


def _read(client: Any, table_name: str, finished: set[str]) -> list[dict[str, Any]]:
    table = _TABLES[table_name]
    names = table.schema.names
    try:
        rows = [{name: row.get(name) for name in names} for row in _rows(client, table_name)]
    except DestinationUndefinedEntity:
        return []  # no load had such rows yet
    if table_name == "_wb_columns":
        return rows
    if table_name == "_wb_state":
        rows = [row for row in rows if row["load_id"] in finished]
    newest: dict[tuple[Any, ...], dict[str, Any]] = {}
    # Where dlt appends there is a row for each load; ids are times.
    for row in sorted(rows, key=lambda row: (row["load_id"] in finished, row["load_id"] or "")):
        newest[tuple(row[name] for name in table.key)] = row
    return list(newest.values())


def _check_columns(columns: list[dict[str, Any]], dataset: str) -> None:
    """Give each column one row; refuse one of two metrics."""
    first: dict[tuple[str, str], dict[str, Any]] = {}
    for row in columns:
        held = first.setdefault((row["table_name"], row["column_name"]), row)
        if held["original_key"] != row["original_key"]:
            keys = f"{held['original_key']!r} and {row['original_key']!r}"
            raise WarehouseRefused(
                f"Two loads at the same time gave the column {row['column_name']!r} of "
                f"{row['table_name']!r} in {dataset!r} to {keys}: load into a new dataset "
                "(dataset_name=), one load at a time."
            )
    columns[:] = first.values()


def _distrust(loaded: dict[str, list[dict[str, Any]]], found: Found, finished: set[str]) -> None:
    """Mark the receipts of runs to read again, and forget watermarks that may be too late."""
    receipts, given = loaded["_wb_receipts"], loaded[ROWS.name]
    damaged = find_damaged(receipts, given, found)
    damaged |= {row["run_id"] for row in receipts if row["load_id"] not in finished}
    for row in loaded["_wb_state"]:
        if not is_whole(row, receipts, given):
            row.update(watermark=None, reconciled_at=None)
    for row in receipts:
        if row["run_id"] in damaged:
            row.update(_DAMAGED)
    if damaged:
        log.warning("%d runs are read again: their last load was cut or met another", len(damaged))


def _count(client: Any) -> Found:
    """Count the rows of each run by table and load."""
    found: dict[str, dict[str, dict[str, int]]] = {name: {} for name in BY_RUN}
    run_id, load_id = map(client.escape_column_name, ("run_id", "_load_id"))
    for name in BY_RUN:
        sql = f"SELECT {run_id}, {load_id}, count(*) FROM {client.make_qualified_table_name(name)}"
        try:
            with client.execute_query(f"{sql} GROUP BY {run_id}, {load_id}") as cursor:
                for run, load, rows in cursor.fetchall():
                    found[name].setdefault(run, {})[load] = rows
        except DestinationUndefinedEntity:
            continue  # no load had such rows yet
    return found


def _rows(
    client: Any, table_name: str, columns: Sequence[str] = (), run_ids: Sequence[str] = ()
) -> Iterator[dict[str, Any]]:
    selected = ", ".join(map(client.escape_column_name, columns)) or "*"
    sql = f"SELECT {selected} FROM {client.make_qualified_table_name(table_name)}"
    if run_ids:
        marks = ", ".join(["%s"] * len(run_ids))
        sql += f" WHERE {client.escape_column_name('run_id')} IN ({marks})"
    with client.execute_query(sql, *run_ids) as cursor:
        names = [column[0] for column in cursor.description]
        while rows := cursor.fetchmany(10_000):
            for row in rows:
                yield dict(zip(names, row, strict=True))
