"""PostgreSQL's way to do what the commit of a batch needs: ADBC's COPY into temporary tables."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import adbc_driver_manager
import pyarrow as pa
import pyarrow.compute as pc

from wb_ops.errors import WarehouseRefused
from wb_ops.warehouse.base import ONE_SELECT
from wb_ops.warehouse.sql import JSON_COLUMNS, Limits, Staged, literal, literals, quoted
from wb_ops.warehouse.staged import StagedFiles

if TYPE_CHECKING:
    from adbc_driver_postgresql.dbapi import Connection

_TYPES = {
    pa.string(): "text",
    pa.int64(): "bigint",
    pa.float64(): "double precision",
    pa.bool_(): "boolean",
    pa.timestamp("us", tz="UTC"): "timestamp with time zone",
    pa.list_(pa.string()): "text[]",
}
# Rows of a run are found by these; without them each commit would scan the table.
_INDEXES = {
    "history": ("run_id", "_step"),
    "history_long": ("run_id",),
    "system_metrics": ("run_id",),
    "runs": ("run_id",),
    "runs_flat": ("run_id",),
    "_wb_receipts": ("run_id",),
}
_SYNTAX_ERROR = "42601"
_ROWS_AT_ONCE = 65_536
_SHARED_SCHEMA = "wb_ops"
# Texts as W&B has them may hold NaN and Infinity, which PostgreSQL's json refuses.
_WITH_NAN = frozenset({"old_value", "new_value"})


@dataclass(slots=True)
class PostgresSession:
    """A transaction of one connection; staging tables are used again within it."""

    connection: Connection
    limits: Limits
    _free: dict[tuple[pa.DataType, ...], list[str]] = field(default_factory=dict)
    _tables: int = 0

    def sql_type(self, type_: pa.DataType, name: str = "") -> str:
        """The type of a column. `json` keeps the text as it is; `jsonb` would turn 1e22 to int."""
        return "json" if name in JSON_COLUMNS - _WITH_NAN else _TYPES[type_]

    def execute(self, sql: str) -> int:
        """Run one statement; returns the rows it changed."""
        with self.connection.cursor() as cursor:
            cursor.execute(sql)
            return max(int(cursor.rowcount), 0)

    def select(self, sql: str) -> pa.Table:
        """Run one SELECT."""
        return select(self.connection, sql)

    def columns_of(self, dataset: str, names: Iterable[str]) -> dict[str, dict[str, str]]:
        """Give table -> column -> type, of these tables in a dataset."""
        wanted = literals(names) or "NULL"
        rows = self.select(
            "SELECT CAST(c.relname AS text) AS table_name, CAST(a.attname AS text) AS name, "
            "format_type(a.atttypid, a.atttypmod) AS type FROM pg_attribute a "
            "JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace "
            f"WHERE n.nspname = {literal(dataset)} AND c.relkind IN ('r', 'p') "
            f"AND c.relname IN ({wanted}) AND a.attnum > 0 AND NOT a.attisdropped"
        )
        tables: dict[str, dict[str, str]] = {}
        for row in rows.to_pylist():
            tables.setdefault(row["table_name"], {})[row["name"]] = row["type"]
        return tables

    def create_schema(self, dataset: str) -> None:
        """Create a schema, unless somebody with the right to do so has done it."""
        if not self.schema_exists(dataset):
            self.execute(f"CREATE SCHEMA {quoted(dataset)}")

    def schema_exists(self, name: str) -> bool:
        """Whether there is such a schema."""
        sql = f"SELECT 1 AS one FROM pg_namespace WHERE nspname = {literal(name)}"
        return bool(self.select(sql).num_rows)

    def create_table(self, dataset: str, table_name: str, columns: str) -> None:
        """Create a table and the index that its runs are found by."""
        self.execute(f"CREATE TABLE {quoted(dataset, table_name)} ({columns})")
        if key := _INDEXES.get(table_name):
            names = ", ".join(map(quoted, key))
            self.execute(f"CREATE INDEX ON {quoted(dataset, table_name)} ({names})")

    def prepare_layout(self, dataset: str) -> None:
        """Let one transaction at a time change views; lock them in the order in which readers do.

        A reader locks a view, then its tables. A writer that did it the other way round would
        meet it in a deadlock.
        """
        self.lock(f"views of {_SHARED_SCHEMA}")
        views = self.select(
            "SELECT CAST(c.relname AS text) AS name FROM pg_class c "
            "JOIN pg_namespace n ON n.oid = c.relnamespace "
            f"WHERE n.nspname = {literal(dataset)} AND c.relkind = 'v' "
            "AND c.relname IN ('history_tall', 'wb_completeness') ORDER BY 1"
        )
        for name in views["name"].to_pylist():
            self.execute(f"LOCK TABLE {quoted(dataset, name)} IN ACCESS EXCLUSIVE MODE")

    def lock(self, what: str) -> None:
        """Wait for the advisory lock of this name; the end of the transaction gives it back."""
        digest = hashlib.sha256(f"wb_ops {what}".encode()).digest()
        key = int.from_bytes(digest[:8], "big", signed=True)
        self.select(f"SELECT CAST(pg_advisory_xact_lock({key}) AS text) AS locked")

    def shared_schema(self) -> str | None:
        """The schema of the views over all datasets; None where this user may not make them."""
        if not self.schema_exists(_SHARED_SCHEMA):
            if not self._is_true("has_database_privilege(current_database(), 'CREATE')"):
                return None
            self.create_schema(_SHARED_SCHEMA)
        foreign = (
            "SELECT 1 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
            f"WHERE n.nspname = '{_SHARED_SCHEMA}' AND NOT pg_has_role(c.relowner, 'USAGE')"
        )
        mine = f"has_schema_privilege('{_SHARED_SCHEMA}', 'CREATE') AND NOT EXISTS ({foreign})"
        return _SHARED_SCHEMA if self._is_true(mine) else None

    def _is_true(self, condition: str) -> bool:
        return bool(self.select(f"SELECT {condition} AS answer")["answer"][0].as_py())

    @contextmanager
    def rows_of(self, rows: pa.Table | pa.RecordBatchReader) -> Iterator[Staged]:
        """Copy Arrow rows into a temporary table."""
        batches = rows.to_batches(_ROWS_AT_ONCE) if isinstance(rows, pa.Table) else rows
        with self._copied(rows.schema, batches) as staged:
            yield staged

    @contextmanager
    def files_of(self, files: StagedFiles, columns: Sequence[str]) -> Iterator[Staged]:
        """Copy these columns of parquet files into a temporary table, part by part."""
        chosen = pa.schema([files.schema.field(name) for name in columns])
        with self._copied(chosen, files.iter_batches(columns, _ROWS_AT_ONCE)) as staged:
            yield staged

    @contextmanager
    def _copied(self, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> Iterator[Staged]:
        names = [f"c{index}" for index in range(len(schema))]
        renamed = pa.schema(list(zip(names, schema.types, strict=True)))
        reader = pa.RecordBatchReader.from_batches(
            renamed, (pa.record_batch(batch.columns, schema=renamed) for batch in batches)
        )
        free = self._free.setdefault(tuple(schema.types), [])
        table = free.pop() if free else self._create(renamed)
        with self.connection.cursor() as cursor:
            cursor.adbc_ingest(table, reader, mode="append", temporary=True)
        yield Staged(f"pg_temp.{table}", dict(zip(schema.names, names, strict=True)))
        # A dropped table would keep its locks until the end: thousands of them are too many.
        self.execute(f"TRUNCATE pg_temp.{table}")
        free.append(table)

    def _create(self, schema: pa.Schema) -> str:
        self._tables += 1
        name = f"wb_ops_rows_{self._tables}"
        columns = ", ".join(f"{one.name} {_TYPES[one.type]}" for one in schema)
        self.execute(f"CREATE TEMPORARY TABLE {name} ({columns}) ON COMMIT DROP")
        return name

    def unpivoted(self, relation: str, fixed: Sequence[str], keys: Mapping[str, str]) -> str:
        """Unpivot in one pass over the relation; nulls are left out."""
        values = ", ".join(f"({literal(key)}, {column})" for column, key in keys.items())
        return (
            f"SELECT {', '.join(fixed)}, long.key, long.value FROM {relation} "
            f"CROSS JOIN LATERAL (VALUES {values}) long(key, value) WHERE long.value IS NOT NULL"
        )


def select(connection: Connection, sql: str) -> pa.Table:
    """Run one SELECT and read all of its rows.

    json comes as text. numeric, which Arrow has no type for, comes as int64 where every value is
    such an integer, else as double.
    """
    with connection.cursor() as cursor:
        # It becomes part of another one, which a comment at its end would swallow.
        cursor.execute(sql.strip().rstrip(";") + "\n")
        table = cursor.fetch_arrow_table()
    columns = [_plain(column) for column in table.columns]
    return pa.table(columns, names=table.column_names)


def select_only(connection: Connection, sql: str) -> pa.Table:
    """Run what somebody else calls a SELECT; a transaction that is read-only may write files.

    Raises:
        WarehouseRefused: it is something else (retry: never).
    """
    with connection.cursor() as cursor:
        try:
            # A cursor takes nothing but one SELECT. It is parsed here, and not opened.
            prepared = cursor.adbc_prepare(f"DECLARE wb_ops_query CURSOR FOR\n{sql}")
        except adbc_driver_manager.ProgrammingError as exc:
            if exc.sqlstate != _SYNTAX_ERROR:
                raise
            said = str(exc).rpartition("ERROR:  ")[2].partition("\n")[0]
            raise WarehouseRefused(f"{ONE_SELECT} PostgreSQL says: {said}") from exc
        if prepared is None:
            # What is not supported, such as a WITH that writes, ADBC does not raise here.
            raise WarehouseRefused(f"{ONE_SELECT} PostgreSQL does not support this one.")
    return select(connection, sql)


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if not isinstance(column.type, pa.BaseExtensionType):
        return column
    texts = column.cast(column.type.storage_type)
    if getattr(column.type, "type_name", None) != "numeric":
        return texts
    try:
        return pc.cast(texts, pa.int64())
    except pa.ArrowInvalid:
        return pc.cast(texts, pa.float64())
