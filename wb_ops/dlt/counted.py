"""What the destination holds, counted there and compared with what finished loads gave."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import Any

from dlt.common.destination.exceptions import DestinationUndefinedEntity, SqlClientNotAvailable

from wb_ops.dlt.pipelines import finished_loads, is_merging, rows_of
from wb_ops.dlt.proof import BY_RUN, ROWS, Key, find_damaged

# The newest counts of each run and table.
_GIVEN = """
    SELECT given.{run_id}, given.{table_name}, given.{load_id}, given.{row_count}
    FROM {rows} given JOIN (
        SELECT {run_id}, {table_name}, max({load_id}) AS newest_id FROM {rows}
        WHERE {load_id} IN (SELECT {load_id} FROM {loads} WHERE {status} = 0)
        GROUP BY {run_id}, {table_name}
    ) newest ON given.{run_id} = newest.{run_id} AND given.{table_name} = newest.{table_name}
        AND given.{load_id} = newest.newest_id
"""
_COUNTED = "SELECT DISTINCT {load_id} FROM {rows}"
_FOUND = "SELECT {run_id}, {_load_id}, count(*) FROM {table} GROUP BY {run_id}, {_load_id}"
_COLUMNS = (*ROWS.schema.names, "_load_id", "status")


def find_damaged_now(pipeline: Any) -> set[Key]:
    """Give the receipts that the dataset does not hold as they were given, by run and table."""
    if not is_merging(pipeline):
        return set()
    try:
        with pipeline.sql_client() as client:
            return damaged_of(client, rows_of(client, "_wb_receipts"), finished_loads(client))
    except SqlClientNotAvailable:
        return set()


def damaged_of(
    client: Any, receipts: Iterable[Mapping[str, Any]], finished: AbstractSet[str]
) -> set[Key]:
    """The same, from receipts that are read; none where no load has left counts."""
    try:
        given = {(run, name): (load, rows) for run, name, load, rows in _select(client, _GIVEN)}
        counted = {load_id for (load_id,) in _select(client, _COUNTED)}
    except DestinationUndefinedEntity:
        return set()
    if not given:
        return set()
    held: dict[Key, Counter[str]] = {}
    for row in receipts:
        held.setdefault((row["run_id"], row["table_name"]), Counter())[row["load_id"]] += 1
    return find_damaged(given, held, _count(client), finished - counted)


def _count(client: Any) -> dict[Key, dict[str, int]]:
    found: dict[Key, dict[str, int]] = {}
    for name in BY_RUN:
        try:
            for run_id, load_id, rows in _select(client, _FOUND, name):
                found.setdefault((run_id, name), {})[load_id] = rows
        except DestinationUndefinedEntity:
            continue  # no load had such rows yet
    return found


def _select(client: Any, sql: str, table_name: str = ROWS.name) -> Iterator[tuple[Any, ...]]:
    names = {name: client.escape_column_name(name) for name in _COLUMNS}
    tables = {"rows": ROWS.name, "loads": "_dlt_loads", "table": table_name}
    names |= {key: client.make_qualified_table_name(name) for key, name in tables.items()}
    with client.execute_query(sql.format(**names)) as cursor:
        while rows := cursor.fetchmany(10_000):
            yield from map(tuple, rows)
