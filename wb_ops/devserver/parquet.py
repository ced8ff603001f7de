"""Parquet exports of histories: one column a metric, one row a step, exact or not at all."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from wb_ops.devserver.arrow_types import (
    TypeConflictError,
    UnrepresentableError,
    common_type,
    count_compatible,
)
from wb_ops.devserver.jsontext import Json, KeyCollisionError, flatten

MAX_TYPE_CHANGES = 16
_DOUBLES = ("_timestamp", "_runtime")


def write_parts(batches: Iterable[Sequence[str]], folder: Path, rows_per_file: int) -> list[Path]:
    """Write history lines as parquet files ``0.parquet``, ``1.parquet``, … into a folder.

    A column has one type in a file; where it changes, the next file begins.

    Raises:
        UnrepresentableError: a value that no Arrow type holds, or too many changes of type.
    """
    folder.mkdir(parents=True)
    paths = []
    for index, table in enumerate(_tables(_rows(batches), rows_per_file)):
        paths.append(folder / f"{index}.parquet")
        pq.write_table(table, paths[-1])
    return paths


def _rows(batches: Iterable[Sequence[str]]) -> Iterator[list[dict[str, Json]]]:
    for texts in batches:
        rows = json.loads("[" + ",".join(texts) + "]", strict=False)
        try:
            yield [flatten(row) for row in rows]
        except KeyCollisionError as error:
            raise UnrepresentableError(f"two values for {error}") from error


def _tables(batches: Iterable[list[dict[str, Json]]], rows_per_file: int) -> Iterator[pa.Table]:
    pending: list[dict[str, Json]] = []
    type_changes = 0
    for batch in batches:
        pending += batch
        while len(pending) >= rows_per_file:
            table = _leading_table(pending[:rows_per_file])
            type_changes += _counted(table, rows_per_file, type_changes)
            pending = pending[table.num_rows :]
            yield table
    while pending:
        table = _leading_table(pending)
        type_changes += _counted(table, len(pending), type_changes)
        pending = pending[table.num_rows :]
        yield table


def _counted(table: pa.Table, wanted_rows: int, type_changes: int) -> int:
    changed = int(table.num_rows < wanted_rows)
    if type_changes + changed >= MAX_TYPE_CHANGES:
        raise UnrepresentableError(f"column types change more than {MAX_TYPE_CHANGES} times")
    return changed


def _leading_table(rows: list[dict[str, Json]]) -> pa.Table:
    """As many leading rows as share their columns' types."""
    columns = {key: [row.get(key) for row in rows] for key in _keys(rows)}
    count, types = len(rows), {}
    for key, values in columns.items():
        try:
            types[key] = _column_type(key, values[:count])
        except TypeConflictError:
            count = count_compatible(values[:count])
    if count < len(rows):
        return _leading_table(rows[:count])
    return _build(columns, types)


def _build(columns: dict[str, list[Json]], types: dict[str, pa.DataType]) -> pa.Table:
    kept = {key: kind for key, kind in types.items() if not pa.types.is_null(kind)}
    try:
        arrays = [pa.array(columns[key], type=kind) for key, kind in kept.items()]
        return pa.Table.from_arrays(arrays, names=list(kept))
    except (UnicodeEncodeError, pa.ArrowInvalid) as error:
        raise UnrepresentableError(str(error)) from error


def _keys(rows: list[dict[str, Json]]) -> list[str]:
    keys: dict[str, None] = {}
    for row in rows:
        keys.update(dict.fromkeys(row))
    return list(keys)


def _column_type(key: str, values: list[Json]) -> pa.DataType:
    if key == "_step":
        return pa.int64()
    kind = common_type(values)
    if key not in _DOUBLES:
        return kind
    if not (pa.types.is_null(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        raise UnrepresentableError(f"{key} is no number")
    return pa.float64()
