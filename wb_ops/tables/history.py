"""One run's merged history -> the canonical `history` table, a selection of keys, or rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from wb_ops.tables.columns import (
    Column,
    canonical_column,
    doubles,
    holds_numbers,
    holds_others,
    inexact_mask,
    is_exact,
)
from wb_ops.tables.live import live_table
from wb_ops.tables.merge import MergedHistory, merge_parts
from wb_ops.tables.schemas import history_schema
from wb_ops.tables.values import encode_document, escape_text, pointers_text, unescape_text

__all__ = [
    "MergedHistory",
    "history_batch",
    "history_columns",
    "live_table",
    "merge_parts",
    "select_keys",
    "to_rows",
]

# keys that have columns of their own in every history table
OWN_COLUMNS = ("_step", "_timestamp", "_runtime")

# warehouses and Python hold the years 1 to 9999; a logged _timestamp can be anything
_MIN_EPOCH_S = -62_135_596_800
_MAX_EPOCH_S = 253_402_300_799


def select_keys(
    table: pa.Table, keys: Sequence[str], require: Literal["any", "all"] = "any"
) -> pa.Table:
    """Keep the rows that hold some of the keys, and of them `_step` and the keys in that order.

    A key that the table lacks is a column of nulls. `_step` itself decides about no row; with no
    other key every row is kept.

    Args:
        table: a merged history.
        keys: logged keys.
        require: whether a row must hold any of the keys, or all of them.
    """
    wanted = dict.fromkeys(escape_text(key)[0] for key in keys)
    names = [name for name in wanted if name != "_step"]
    fields = [_field(table, name) for name in ("_step", *names)]
    columns = [_data(table, field) for field in fields]
    selected = pa.table(columns, schema=pa.schema(fields, table.schema.metadata))
    if not names:
        return selected
    combine = pc.or_ if require == "any" else pc.and_
    return selected.filter(reduce(combine, [column.is_valid() for column in columns[1:]]))


def history_columns(table: pa.Table) -> tuple[list[str], list[str]]:
    """Tell which keys hold numbers and which hold anything else, in column order.

    A key that holds both is in both lists; `_step`, `_timestamp`, `_runtime` and keys that were
    never logged are in neither. Booleans are no numbers.
    """
    logged = _logged(table)
    numeric = [name for name, column in logged.items() if holds_numbers(column)]
    other = [name for name, column in logged.items() if holds_others(column)]
    return numeric, other


def history_batch(
    run_id: str, table: pa.Table, names: Mapping[str, str], load_id: str | None
) -> pa.Table:
    """Turn a merged history into rows of the `history` table, exactly.

    Numbers go to the DOUBLE columns. `_extra` holds, by key, what these do not hold exactly:
    other values, integers beyond 2^53, and numbers whose key has no name in `names`. A column
    whose key the table lacks is all null. `logged_at` is null where `_timestamp` is outside the
    years 1 to 9999.

    Args:
        run_id: the run.
        table: a merged history (`_step` int64).
        names: key -> metric column.
        load_id: the load that the rows belong to.

    Returns:
        A table in `history_schema(names.values())`, metric columns sorted.
    """
    logged = {name: _column(table, name) for name in table.column_names if name != "_step"}
    extra, floats = _extra(logged, {*names, *OWN_COLUMNS}, table.num_rows)
    timestamps = _numbers(logged.get("_timestamp"), table.num_rows)
    columns = {
        "run_id": pa.repeat(escape_text(run_id)[0], table.num_rows),
        "_step": table["_step"],
        "_timestamp": timestamps,
        "logged_at": _times(timestamps),
        "_runtime": _numbers(logged.get("_runtime"), table.num_rows),
        "_extra": extra,
        "_floats": floats,
        "_load_id": pa.repeat(pa.scalar(load_id, pa.string()), table.num_rows),
    } | {name: _numbers(logged.get(key), table.num_rows) for key, name in names.items()}
    schema = history_schema(list(names.values()))
    return pa.table([columns[name] for name in schema.names], schema=schema)


def to_rows(table: pa.Table) -> list[dict[str, object]]:
    """Turn a merged history into one dict a row, with the keys that the row holds."""
    rows: list[dict[str, object]] = [{} for _ in range(table.num_rows)]
    for name in table.column_names:
        key = unescape_text(name)
        for row, value in zip(rows, _column(table, name).values(), strict=True):
            if value is not None:
                row[key] = value
    return rows


def _column(table: pa.Table, name: str) -> Column:
    return canonical_column(table.schema.field(name), table[name], exact_text=True)


def _logged(table: pa.Table) -> dict[str, Column]:
    names = [name for name in table.column_names if name not in OWN_COLUMNS]
    return {name: _column(table, name) for name in names}


def _field(table: pa.Table, name: str) -> pa.Field:
    index = table.schema.get_field_index(name)
    return table.schema.field(index) if index >= 0 else pa.field(name, pa.null())


def _data(table: pa.Table, field: pa.Field) -> pa.ChunkedArray:
    if field.name in table.column_names:
        return table[field.name]
    return pa.chunked_array([pa.nulls(table.num_rows)])


def _numbers(column: Column | None, row_count: int) -> pa.ChunkedArray:
    if column is None or not holds_numbers(column):
        return pa.chunked_array([pa.nulls(row_count, pa.float64())])
    return doubles(column)


def _times(timestamps: pa.ChunkedArray) -> pa.ChunkedArray:
    # NumPy is five times as fast at this; what is null is NaN there, which is no time.
    seconds = timestamps.to_numpy()
    is_time = (seconds >= _MIN_EPOCH_S) & (seconds <= _MAX_EPOCH_S)
    microseconds = np.rint(np.where(is_time, seconds, 0.0) * 1e6).astype(np.int64)
    return pa.chunked_array([pa.array(microseconds, pa.timestamp("us", tz="UTC"), mask=~is_time)])


def _extra(
    logged: Mapping[str, Column], with_column: set[str], row_count: int
) -> tuple[pa.Array, pa.Array]:
    """The columns `_extra` and `_floats`; only rows that need them are visited."""
    documents: dict[int, dict[str, object]] = {}
    for name, column in logged.items():
        if name in with_column and is_exact(column):
            continue
        mask = inexact_mask(column) if name in with_column else column.data.is_valid()
        if not pc.any(mask).as_py():
            continue
        key = unescape_text(name)
        values = Column(column.data.filter(mask), column.is_json).values()
        for row, value in zip(pc.indices_nonzero(mask).to_pylist(), values, strict=True):
            documents.setdefault(row, {})[key] = value
    if not documents:
        nothing = pa.nulls(row_count, pa.string())
        return nothing, nothing
    texts: list[str | None] = [None] * row_count
    floats: list[str | None] = [None] * row_count
    for row, document in documents.items():
        encoded = encode_document(document, "/_extra")
        texts[row] = encoded.text
        floats[row] = pointers_text(encoded.floats)
    return pa.array(texts, pa.string()), pa.array(floats, pa.string())
