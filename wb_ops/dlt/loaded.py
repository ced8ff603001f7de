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

from wb_ops.tables.schemas import RUNS, TABLES

log = logging.getLogger("wb_ops")

_STATE = ("_wb_columns", "_wb_receipts", "_wb_state")
IDS_PER_QUERY = 500


def package_id() -> str | None:
    """The id of the load package that is being extracted; None outside of a pipeline."""
    container = Container()
    if LoadPackageStateInjectableContext not in container:
        return None
    return str(container[LoadPackageStateInjectableContext].load_id)


def read_loaded() -> dict[str, pa.Table]:
    """Read columns, receipts and state that the destination has.

    Receipts and state count only if dlt has recorded their load as finished: the tables of a load
    arrive one by one. Where nothing can be read, nothing is known, and everything is read anew.
    """
    empty = {name: TABLES[name].schema.empty_table() for name in _STATE}
    pipeline = _pipeline()
    if pipeline is None or pipeline.destination is None:
        return empty
    try:
        with pipeline.sql_client() as client:
            finished = {row["load_id"] for row in _rows(client, "_dlt_loads") if not row["status"]}
            return {name: _read(client, name, finished) for name in _STATE}
    except DestinationUndefinedEntity:
        return empty  # the first load
    except SqlClientNotAvailable:
        log.warning("this destination cannot be read back: every load reads all runs again")
        return empty


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


def _read(client: Any, table_name: str, finished: set[str]) -> pa.Table:
    schema = TABLES[table_name].schema
    try:
        rows = [{name: row.get(name) for name in schema.names} for row in _rows(client, table_name)]
    except DestinationUndefinedEntity:
        return schema.empty_table()  # no load had such rows yet
    if "load_id" in schema.names:
        rows = [row for row in rows if row["load_id"] in finished]
    newest: dict[tuple[Any, ...], dict[str, Any]] = {}
    # Where dlt appends there is a row for each load; ids are times.
    for row in sorted(rows, key=lambda row: row.get("load_id") or ""):
        newest[tuple(row[name] for name in TABLES[table_name].key)] = row
    return pa.Table.from_pylist(list(newest.values()), schema=schema)


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
