"""What the destination holds, counted there and compared with what finished loads gave."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import Any

from dlt.common.destination.exceptions import DestinationUndefinedEntity, SqlClientNotAvailable

from wb_ops.dlt.pipelines import finished_loads, is_merging, rows_of
from wb_ops.dlt.proof import BY_RUN, ROW_COUNTS, Key, find_damaged, order_loads

# The newest counts of each run and table.
_GIVEN = """
    SELECT {run_id}, {table_name}, {load_id}, {row_count} FROM (
        SELECT {run_id}, {table_name}, {load_id}, {row_count}, ROW_NUMBER() OVER (
            PARTITION BY {run_id}, {table_name} ORDER BY {load_number} DESC, {load_id} DESC
        ) AS place FROM {rows}
        WHERE {load_id} IN (SELECT {load_id} FROM {loads} WHERE {status} = 0)
    ) given WHERE place = 1
"""
_NUMBERS = "SELECT DISTINCT {load_id}, {load_number} FROM {rows}"
_FOUND = "SELECT {run_id}, {_load_id}, count(*) FROM {table} GROUP BY {run_id}, {_load_id}"
_COLUMNS = (*ROW_COUNTS.schema.names, "_load_id", "status")


def find_damaged_since(
    pipeline: Any, packages: AbstractSet[str], finished_before: AbstractSet[str]
) -> set[Key]:
    """Give the receipts that are not held as they were given, by run and table.

    None, and nothing is counted, where no other load than `packages` has finished meanwhile.
    """
    if not is_merging(pipeline):
        return set()
    try:
        with pipeline.sql_client() as client:
            finished = finished_loads(client)
            if not packages <= finished or finished <= packages | finished_before:
                return set()
            numbers = numbers_of(client)
            return damaged_of(client, rows_of(client, "_wb_receipts"), finished, numbers)
    except (DestinationUndefinedEntity, SqlClientNotAvailable):
        return set()


def numbers_of(client: Any) -> dict[str, int]:
    """Give the numbers of the loads that have left counts."""
    try:
        return dict(_select(client, _NUMBERS))
    except DestinationUndefinedEntity:
        return {}


def damaged_of(
    client: Any,
    receipts: Iterable[Mapping[str, Any]],
    finished: AbstractSet[str],
    numbers: Mapping[str, int],
) -> set[Key]:
    """The same, from what is read already; none where no finished load has left counts."""
    if not finished & numbers.keys():
        return set()
    given = {(run, name): (load, rows) for run, name, load, rows in _select(client, _GIVEN)}
    held: dict[Key, Counter[str]] = {}
    for row in receipts:
        held.setdefault((row["run_id"], row["table_name"]), Counter())[row["load_id"]] += 1
    places, _ = order_loads(finished, numbers)
    return find_damaged(given, held, _count(client), finished - numbers.keys(), places)


def _count(client: Any) -> dict[Key, dict[str, int]]:
    found: dict[Key, dict[str, int]] = {}
    for name in BY_RUN:
        try:
            for run_id, load_id, rows in _select(client, _FOUND, name):
                found.setdefault((run_id, name), {})[load_id] = rows
        except DestinationUndefinedEntity:
            continue  # no load had such rows yet
    return found


def _select(client: Any, sql: str, table_name: str = ROW_COUNTS.name) -> Iterator[tuple[Any, ...]]:
    names = {name: client.escape_column_name(name) for name in _COLUMNS}
    tables = {"rows": ROW_COUNTS.name, "loads": "_dlt_loads", "table": table_name}
    names |= {key: client.make_qualified_table_name(name) for key, name in tables.items()}
    with client.execute_query(sql.format(**names)) as cursor:
        while rows := cursor.fetchmany(10_000):
            yield from map(tuple, rows)
