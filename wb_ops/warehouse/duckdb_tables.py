"""The SQL of a DuckDB warehouse: tables, owners, replacing rows, adding metric columns.

Every function works on an open connection, inside the transaction of its caller.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from wb_ops.errors import WarehouseRefused
from wb_ops.tables.names import assign_names
from wb_ops.tables.schemas import (
    HISTORY,
    SCHEMA_VERSION,
    STATE,
    TABLES,
    check_schema,
    history_schema,
)
from wb_ops.warehouse.base import Owner, staged_key

_TYPES = {
    pa.string(): "VARCHAR",
    pa.int64(): "BIGINT",
    pa.float64(): "DOUBLE",
    pa.bool_(): "BOOLEAN",
    pa.timestamp("us", tz="UTC"): "TIMESTAMPTZ",
    pa.list_(pa.string()): "VARCHAR[]",
}
# Columns that hold JSON are typed so: people query them with ->> and json_extract.
_JSON_COLUMNS = {"config", "summary", "_extra", "_floats", "old_value", "new_value"}


def _quoted(*names: str) -> str:
    return ".".join('"' + name.replace('"', '""') + '"' for name in names)


def create_tables(connection: duckdb.DuckDBPyConnection, dataset: str) -> None:
    connection.execute(f"CREATE SCHEMA IF NOT EXISTS {_quoted(dataset)}")
    for table in TABLES.values():
        columns = ", ".join(f"{_quoted(field.name)} {_sql_type(field)}" for field in table.schema)
        connection.execute(f"CREATE TABLE IF NOT EXISTS {_quoted(dataset, table.name)} ({columns})")


def _sql_type(field: pa.Field) -> str:
    return "JSON" if field.name in _JSON_COLUMNS else _TYPES[field.type]


def schema_exists(connection: duckdb.DuckDBPyConnection, dataset: str) -> bool:
    return _exists(
        connection,
        "SELECT 1 FROM duckdb_schemas() WHERE lower(schema_name) = lower(?) AND database_name = "
        "current_database()",
        dataset,
    )


def table_exists(connection: duckdb.DuckDBPyConnection, dataset: str, name: str) -> bool:
    return _exists(
        connection,
        "SELECT 1 FROM duckdb_tables() WHERE lower(schema_name) = lower(?) AND table_name = ? AND "
        "database_name = current_database()",
        dataset,
        name,
    )


def _exists(connection: duckdb.DuckDBPyConnection, sql: str, *values: str) -> bool:
    # All of it: a result that is not read to its end blocks the connection.
    return bool(connection.execute(sql, list(values)).fetchall())


def check_owner(connection: duckdb.DuckDBPyConnection, dataset: str, owner: Owner) -> None:
    if not table_exists(connection, dataset, "_wb_state"):
        return
    state = read(connection, dataset, "_wb_state")
    owners = {Owner(row["entity"], row["project"]) for row in state.to_pylist()}
    if others := owners - {owner}:
        raise WarehouseRefused(
            f"The dataset {dataset!r} holds {', '.join(map(str, others))}, not {owner}: "
            "give this project a dataset of its own (dataset=)."
        )
    newest = max(state["schema_version"].to_pylist(), default=SCHEMA_VERSION)
    if newest > SCHEMA_VERSION:
        raise WarehouseRefused(
            f"The dataset {dataset!r} was written by a newer wb_ops (schema {newest}, this one "
            f"writes {SCHEMA_VERSION}): upgrade wb_ops."
        )


def read(connection: duckdb.DuckDBPyConnection, dataset: str, name: str) -> pa.Table:
    schema = TABLES[name].schema
    columns = ", ".join(
        f"CAST({_quoted(field.name)} AS {_TYPES[field.type]}) AS {_quoted(field.name)}"
        for field in schema
    )
    return select(connection, f"SELECT {columns} FROM {_quoted(dataset, name)}").cast(schema)


def select(connection: duckdb.DuckDBPyConnection, sql: str) -> pa.Table:
    selected = connection.sql(sql)
    if selected is None:
        raise WarehouseRefused("The SQL returns no rows: give one SELECT.")
    return selected.to_arrow_table()


def record_owner(connection: duckdb.DuckDBPyConnection, dataset: str, owner: Owner) -> None:
    """Say whose dataset this is where no export has said so yet."""
    if read(connection, dataset, "_wb_state").num_rows == 0:
        row = {
            "scope": "",
            "entity": owner.entity,
            "project": owner.project,
            "schema_version": SCHEMA_VERSION,
        }
        insert(connection, dataset, "_wb_state", pa.Table.from_pylist([row], schema=STATE))


def upsert(connection: duckdb.DuckDBPyConnection, dataset: str, name: str, rows: pa.Table) -> int:
    """Replace rows by the table's key; returns how many were inserted."""
    if rows.num_rows == 0:
        return 0
    key = TABLES[name].key
    match = " AND ".join(f"old.{_quoted(column)} = new.{_quoted(column)}" for column in key)
    with _registered(connection, rows) as new:
        connection.execute(
            f"DELETE FROM {_quoted(dataset, name)} old USING {new} new WHERE {match}"
        )
    return insert(connection, dataset, name, rows)


def insert(connection: duckdb.DuckDBPyConnection, dataset: str, name: str, rows: pa.Table) -> int:
    check_schema(rows, TABLES[name].schema)
    return _insert_checked(connection, dataset, name, rows)


def _insert_checked(
    connection: duckdb.DuckDBPyConnection, dataset: str, name: str, rows: pa.Table
) -> int:
    """Insert rows whose schema was checked; returns DuckDB's own count of them."""
    with _registered(connection, rows) as new:
        sql = f"INSERT INTO {_quoted(dataset, name)} BY NAME SELECT * FROM {new}"
        return int(connection.execute(sql).fetchall()[0][0])


def delete(
    connection: duckdb.DuckDBPyConnection, dataset: str, name: str, run_ids: Sequence[str]
) -> None:
    if run_ids:
        connection.execute(
            f"DELETE FROM {_quoted(dataset, name)} WHERE run_id IN (SELECT unnest(?::VARCHAR[]))",
            [list(run_ids)],
        )


def mark_deleted(
    connection: duckdb.DuckDBPyConnection, dataset: str, run_ids: Sequence[str], load_id: str
) -> None:
    if run_ids:
        connection.execute(
            f"UPDATE {_quoted(dataset, 'runs')} SET deleted_at = now(), _load_id = ? "
            "WHERE deleted_at IS NULL AND run_id IN (SELECT unnest(?::VARCHAR[]))",
            [load_id, list(run_ids)],
        )


def by_columns(files: Sequence[Path]) -> Iterator[pa.Table]:
    """Read the staged files, those of equal columns together: one insert for many runs."""
    groups: dict[tuple[str, ...], list[Path]] = {}
    for path in files:
        groups.setdefault(tuple(pq.read_schema(path).names), []).append(path)
    for paths in groups.values():
        yield pa.concat_tables([pq.read_table(path) for path in paths])


def add_columns(connection: duckdb.DuckDBPyConnection, dataset: str, staged: pa.Table) -> list[str]:
    """Give new metrics their columns; returns the new names."""
    known = _metric_names(connection, dataset)
    keys = [key for name in staged.column_names if (key := staged_key(name)) is not None]
    added = assign_names([key for key in keys if key not in known], known, HISTORY.names)
    for key, column in added.items():
        connection.execute(
            f"ALTER TABLE {_quoted(dataset, 'history')} ADD COLUMN {_quoted(column)} DOUBLE"
        )
        connection.execute(
            f"INSERT INTO {_quoted(dataset, '_wb_columns')} VALUES "
            "('history', ?, ?, 'DOUBLE', now())",
            [column, key],
        )
    return list(added.values())


def _metric_names(connection: duckdb.DuckDBPyConnection, dataset: str) -> dict[str, str]:
    rows = connection.execute(
        f"SELECT original_key, column_name FROM {_quoted(dataset, '_wb_columns')} "
        "WHERE table_name = 'history'"
    ).fetchall()
    return dict(rows)


def insert_history(connection: duckdb.DuckDBPyConnection, dataset: str, staged: pa.Table) -> int:
    names = _metric_names(connection, dataset)
    columns = {
        name: names[key] for name in staged.column_names if (key := staged_key(name)) is not None
    }
    named = staged.rename_columns([columns.get(name, name) for name in staged.column_names])
    named = named.select(history_schema(sorted(columns.values())).names)
    check_schema(named, history_schema(sorted(columns.values())))
    _check_column_types(connection, dataset, columns.values())
    return _insert_checked(connection, dataset, "history", named)


def _check_column_types(
    connection: duckdb.DuckDBPyConnection, dataset: str, columns: Iterable[str]
) -> None:
    """Refuse a metric column that somebody altered: an INSERT would round without a word."""
    wrong = connection.execute(
        "SELECT column_name, data_type FROM duckdb_columns() "
        "WHERE lower(schema_name) = lower(?) AND database_name = current_database() "
        "AND table_name = 'history' AND data_type <> 'DOUBLE' "
        "AND column_name IN (SELECT unnest(?::VARCHAR[]))",
        [dataset, list(columns)],
    ).fetchall()
    if wrong:
        raise WarehouseRefused(
            f"history.{wrong[0][0]} is {wrong[0][1]}, not DOUBLE: values would be rounded. "
            "Change it back."
        )


@contextmanager
def _registered(connection: duckdb.DuckDBPyConnection, rows: pa.Table) -> Iterator[str]:
    """Make Arrow rows selectable under the returned name."""
    connection.register("_wb_ops_rows", rows)
    try:
        yield "_wb_ops_rows"
    finally:
        connection.unregister("_wb_ops_rows")
