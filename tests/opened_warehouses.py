"""A warehouse opened with its own driver: of wb_ops nothing but what it wrote takes part.

A file of DuckDB's by `duckdb.connect`, a database by ADBC, a folder by a DuckDB in memory that has
read its `views.sql`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import gettempdir
from typing import Any, Protocol

import adbc_driver_postgresql.dbapi as adbc
import duckdb
import pyarrow as pa


class Opened(Protocol):
    """A connection to a warehouse, and its words for what SQL has no common ones for."""

    dataset: str

    def run(self, sql: str) -> None: ...
    def ask(self, sql: str) -> list[tuple[Any, ...]]: ...
    def put(self, name: str, rows: pa.Table) -> None: ...
    def bits(self, value: str) -> str: ...
    def microseconds(self, time: str) -> str: ...
    def members(self, documents: str, *, is_typed: bool) -> str:
        """Each leaf and container at any depth: doubles by their bits, all else by its text.

        An integer is not its double if `is_typed`; else only one of 16 digits or more is not.
        """

    def pointers(self, cell: str) -> str: ...
    def unpivoted(self, table: str, row: Sequence[str], columns: Sequence[str]) -> str: ...


@dataclass
class InDuckDB:
    """A file of DuckDB's, or views over a folder."""

    connection: duckdb.DuckDBPyConnection
    dataset: str

    def run(self, sql: str) -> None:
        self.connection.execute(sql)

    def ask(self, sql: str) -> list[tuple[Any, ...]]:
        return self.connection.execute(sql).fetchall()

    def put(self, name: str, rows: pa.Table) -> None:
        self.connection.register("arriving", rows)
        self.run(f"create table logged.{name} as select * from arriving")
        self.connection.unregister("arriving")

    def bits(self, value: str) -> str:
        return f"cast(cast({value} as bit) as bigint)"

    def microseconds(self, time: str) -> str:
        return f"epoch_us({time})"

    def members(self, documents: str, *, is_typed: bool) -> str:
        text, double = "cast(value as varchar)", _double_pattern(is_typed)
        return f"""
            with recursive found as (
                {_whole(documents)} union all
                select run_id, place, path || '/' || member.key, member.value
                from (
                    select run_id, place, path, unnest(case json_type(value)
                        when 'OBJECT' then map_entries(cast(value as map(varchar, json)))
                        else list_transform(cast(value as json[]), lambda one, number:
                            {{'key': cast(number as varchar), 'value': one}}) end) as member
                    from found where json_type(value) in ('OBJECT', 'ARRAY')
                )
            )
            select run_id, place, path, case
                when json_type(value) in ('OBJECT', 'ARRAY') then json_type(value)
                when json_type(value) in ('BIGINT', 'UBIGINT', 'DOUBLE')
                    and regexp_matches({text}, '{double}')
                then cast({self.bits(f"cast({text} as double)")} as varchar)
                else {text} end as value
            from found where path <> ''
        """

    def pointers(self, cell: str) -> str:
        return f"unnest(cast({cell} as varchar[]))"

    def unpivoted(self, table: str, row: Sequence[str], columns: Sequence[str]) -> str:
        kept = ", ".join((*row, *map(_quoted, columns)))
        names = ", ".join(map(_quoted, columns))
        return (
            f"select * from (select {kept} from {self.dataset}.{table})"
            f" unpivot (value for column_name in ({names}))"
        )


@dataclass
class InPostgres:
    """A database of PostgreSQL's."""

    connection: adbc.Connection
    dataset: str

    def run(self, sql: str) -> None:
        with self.connection.cursor() as cursor:
            cursor.execute(sql)

    def ask(self, sql: str) -> list[tuple[Any, ...]]:
        with self.connection.cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetchall()

    def put(self, name: str, rows: pa.Table) -> None:
        with self.connection.cursor() as cursor:
            cursor.adbc_ingest(name, rows, db_schema_name="logged")
        self.run(f"analyze logged.{name}")

    def bits(self, value: str) -> str:
        return f"encode(float8send({value}), 'hex')"

    def microseconds(self, time: str) -> str:
        return f"cast(extract(epoch from {time}) * 1000000 as bigint)"

    def members(self, documents: str, *, is_typed: bool) -> str:
        text, double = "value #>> '{}'", _double_pattern(is_typed)
        return f"""
            with recursive found as (
                {_whole(documents)} union all
                select run_id, place, path || '/' || member.key, member.value
                from found cross join lateral (
                    select key, value from json_each(
                        case when json_typeof(found.value) = 'object' then found.value end)
                    union all
                    select cast(at as text), value from json_array_elements(
                        case when json_typeof(found.value) = 'array' then found.value end
                    ) with ordinality as element (value, at)
                ) as member
                where json_typeof(found.value) in ('object', 'array')
            )
            select run_id, place, path, json_typeof(value) || ' ' || case
                when json_typeof(value) in ('object', 'array') then ''
                when json_typeof(value) = 'number' and {text} ~ '{double}'
                then {self.bits(f"cast({text} as double precision)")}
                else {text} end as value
            from found where path <> ''
        """

    def pointers(self, cell: str) -> str:
        return f"json_array_elements_text(cast({cell} as json))"

    def unpivoted(self, table: str, row: Sequence[str], columns: Sequence[str]) -> str:
        names = ", ".join(f"'{name}'" for name in columns)
        values = ", ".join(map(_quoted, columns))
        return (
            f"select {', '.join(row)}, (array[{names}])[at] as column_name, value"
            f" from {self.dataset}.{table}, unnest(array[{values}]) with ordinality"
            " as cell (value, at) where value is not null"
        )


@contextmanager
def opened(url: str, dataset: str) -> Iterator[Opened]:
    """Open what the URL of a warehouse names, without the warehouse."""
    kind, _, path = url.partition(":///")
    if kind.startswith("postgres"):
        with adbc.connect(url) as connection:
            yield InPostgres(connection, dataset)
        return
    file = path if kind == "duckdb" else ":memory:"
    # What does not fit into memory goes where temporary files belong, not into the checkout.
    with duckdb.connect(file, config={"temp_directory": gettempdir()}) as connection:
        if kind != "duckdb":
            connection.execute(Path(path, dataset, "views.sql").read_text())
        yield InDuckDB(connection, dataset)


def _whole(documents: str) -> str:
    """Each document itself, from which its members are found."""
    return f"select run_id, place, '' as path, cast(document as json) as value from ({documents}) d"


def _double_pattern(is_typed: bool) -> str:
    """Numbers with a point or exponent; and integers that are exact doubles, if not `is_typed`."""
    return "[.eE]" if is_typed else "[.eE]|^-?[0-9]{1,15}$"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
