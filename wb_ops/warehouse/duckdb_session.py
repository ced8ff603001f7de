"""DuckDB's way to do what the commit of a batch needs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count

import duckdb
import pyarrow as pa

from wb_ops.errors import WarehouseRefused
from wb_ops.warehouse.base import ONE_SELECT
from wb_ops.warehouse.sql import JSON_COLUMNS, Limits, Staged, literal, literals, quoted
from wb_ops.warehouse.staged import StagedFiles

_TYPES = {
    pa.string(): "VARCHAR",
    pa.int64(): "BIGINT",
    pa.float64(): "DOUBLE",
    pa.bool_(): "BOOLEAN",
    pa.timestamp("us", tz="UTC"): "TIMESTAMP WITH TIME ZONE",
    pa.list_(pa.string()): "VARCHAR[]",
}


@dataclass(slots=True)
class DuckDBSession:
    """A transaction of one connection."""

    connection: duckdb.DuckDBPyConnection
    limits: Limits
    _numbers: Iterator[int] = field(default_factory=count)

    def sql_type(self, type_: pa.DataType, name: str = "") -> str:
        """The type of a column."""
        return "JSON" if name in JSON_COLUMNS else _TYPES[type_]

    def execute(self, sql: str) -> int:
        """Run one statement; returns the rows it changed, 0 where it says nothing of rows."""
        # All of it: a result that is not read to its end blocks the connection.
        rows = self.connection.execute(sql).fetchall()
        return int(rows[0][0]) if rows and isinstance(rows[0][0], int) else 0

    def select(self, sql: str) -> pa.Table:
        """Run one SELECT."""
        return select(self.connection, sql)

    def columns_of(self, dataset: str, names: Iterable[str]) -> dict[str, dict[str, str]]:
        """Give table -> column -> type, of these tables in a dataset as it was last committed."""
        tables = {}
        # A cursor has a transaction of its own: a table that is not there would abort this one.
        with self.connection.cursor() as cursor:
            for table_name in names:
                # duckdb_columns() binds all views of the system first; DESCRIBE is slower, too.
                try:
                    table = cursor.table(quoted(dataset, table_name))
                except duckdb.CatalogException:
                    continue
                tables[table_name] = dict(zip(table.columns, map(str, table.types), strict=True))
        return tables

    def prepare_layout(self, dataset: str) -> None:
        """Nothing to do: the file has one writer."""

    def create_schema(self, dataset: str) -> None:
        """Create a schema that may be there."""
        self.execute(f"CREATE SCHEMA IF NOT EXISTS {quoted(dataset)}")

    def create_table(self, dataset: str, table_name: str, columns: str) -> None:
        """Create a table; DuckDB needs no index to find the rows of a run."""
        self.execute(f"CREATE TABLE {quoted(dataset, table_name)} ({columns})")

    def shared_schema(self) -> str:
        """The schema in which names without one are looked up."""
        return "main"

    @contextmanager
    def rows_of(self, rows: pa.Table | pa.RecordBatchReader) -> Iterator[Staged]:
        """Register Arrow rows; nothing is copied."""
        name = f"_wb_ops_rows_{next(self._numbers)}"
        self.connection.register(name, rows)
        try:
            yield Staged(name, {column: quoted(column) for column in rows.schema.names})
        finally:
            # After a statement that failed nothing more can be said in its transaction; the end of
            # that lets go of the rows.
            with suppress(duckdb.TransactionException):
                self.connection.unregister(name)

    @contextmanager
    def files_of(self, files: StagedFiles, columns: Sequence[str]) -> Iterator[Staged]:
        """Let DuckDB itself read the files, in parallel and in parts."""
        paths = literals(map(str, files.paths))
        yield Staged(f"read_parquet([{paths}])", {column: quoted(column) for column in columns})

    def unpivoted(self, relation: str, fixed: Sequence[str], keys: Mapping[str, str]) -> str:
        """Unpivot in one pass over the relation; nulls are left out."""
        aliases = {f"wb_key_{index}": key for index, key in enumerate(keys.values())}
        pairs = zip(keys, aliases, strict=True)
        columns = ", ".join(f"{column} AS {name}" for column, name in pairs)
        names = ", ".join(f"({literal(name)}, {literal(key)})" for name, key in aliases.items())
        rows = ", ".join(fixed)
        return (
            f"SELECT {rows}, keys.key AS key, long.value AS value FROM "
            f"(UNPIVOT (SELECT {rows}, {columns} FROM {relation}) ON {', '.join(aliases)} "
            "INTO NAME name VALUE value) long "
            f"JOIN (VALUES {names}) keys(name, key) ON keys.name = long.name"
        )


def select(connection: duckdb.DuckDBPyConnection, sql: str) -> pa.Table:
    """Run one SELECT and read all of its rows."""
    selected = connection.sql(sql)
    if selected is None:
        raise WarehouseRefused(ONE_SELECT)
    return selected.to_arrow_table()


def select_only(connection: duckdb.DuckDBPyConnection, sql: str) -> pa.Table:
    """Run what somebody else calls a SELECT; a database that is read-only may write other files.

    Raises:
        WarehouseRefused: it is something else (retry: never).
    """
    kinds = [statement.type for statement in connection.extract_statements(sql)]
    # A PIVOT is several. It may stand in a COPY, and a COPY may stand in the WITH of a SELECT.
    if kinds not in ([duckdb.StatementType.SELECT], [duckdb.StatementType.MULTI]) or (
        "copy" in sql.lower() and _copies(connection, sql)
    ):
        raise WarehouseRefused(ONE_SELECT)
    return select(connection, sql)


def _copies(connection: duckdb.DuckDBPyConnection, sql: str) -> bool:
    plan = connection.execute(f"EXPLAIN (FORMAT json) {sql}").fetchall()
    return "COPY_TO_FILE" in str(plan)
