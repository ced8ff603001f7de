"""A lake's tables as views of DuckDB: for `query`, and as the script beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import duckdb
import pyarrow as pa

from wb_ops.tables.schemas import TABLES
from wb_ops.warehouse.duckdb_session import DuckDBSession
from wb_ops.warehouse.lake.changes import Registry, table_schema
from wb_ops.warehouse.layout import Layout
from wb_ops.warehouse.sql import Limits, literals, quoted
from wb_ops.warehouse.views import rebuild_views

_LIMITS = Limits(0, 0, 0)


@dataclass(slots=True)
class Script(DuckDBSession):
    """Writes statements down instead of running them."""

    statements: list[str] = field(default_factory=list)

    def execute(self, sql: str) -> int:
        """Note one statement."""
        self.statements.append(f"{sql};")
        return 0


def make_views(
    session: DuckDBSession,
    dataset: str,
    files: Mapping[str, Sequence[str]],
    registry: Registry,
    *,
    with_all_runs: bool,
) -> None:
    """Make a view for each table over its files, and the views that every warehouse has.

    `with_all_runs`: also the one over the runs of all datasets that the session has so far.
    """
    session.execute(f"CREATE SCHEMA IF NOT EXISTS {quoted(dataset)}")
    tables: dict[str, dict[str, str]] = {}
    for name in TABLES:
        schema = table_schema(name, registry.types(name))
        tables[name] = {one.name: session.sql_type(one.type, one.name) for one in schema}
        session.execute(
            f"CREATE OR REPLACE VIEW {quoted(dataset, name)} AS "
            f"{_select(session, schema, files.get(name, ()))}"
        )
    names = {name: registry.known(name) for name in ("history", "runs_flat")}
    rebuild_views(Layout(session, dataset, tables, names=names), is_new=with_all_runs)


def script(dataset: str, files: Mapping[str, Sequence[str]], registry: Registry) -> bytes:
    """The statements of `make_views`, for DuckDB's command line or a notebook."""
    with duckdb.connect() as connection:
        session = Script(connection, _LIMITS)
        make_views(session, dataset, files, registry, with_all_runs=False)
    return ("\n".join(session.statements) + "\n").encode()


def session_of(connection: duckdb.DuckDBPyConnection) -> DuckDBSession:
    """A session that only reads."""
    return DuckDBSession(connection, _LIMITS)


def _select(session: DuckDBSession, schema: pa.Schema, files: Sequence[str]) -> str:
    """All columns, also those that no file has; JSON as JSON."""
    nothing = ", ".join(
        f"CAST(NULL AS {session.sql_type(one.type)}) AS {quoted(one.name)}" for one in schema
    )
    source = f"SELECT {nothing} WHERE false"
    if files:
        paths = literals(files)
        source += f" UNION ALL BY NAME SELECT * FROM read_parquet([{paths}], union_by_name = true)"
    columns = ", ".join(
        f"CAST({quoted(one.name)} AS {session.sql_type(one.type, one.name)}) AS {quoted(one.name)}"
        if session.sql_type(one.type, one.name) == "JSON"
        else quoted(one.name)
        for one in schema
    )
    return f"SELECT {columns} FROM ({source})"
