"""Staged rows as one stream of Arrow, for what the database itself would read slowly.

Many runs that log different metrics would be one statement each, and each statement costs a
wide table as much as thousands of rows. Memory holds a part.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import pyarrow as pa

from wb_ops.tables.schemas import DOUBLE, TABLES
from wb_ops.warehouse.base import staged_key
from wb_ops.warehouse.staged import StagedGroup

_CELLS_AT_ONCE = 2_000_000
_LONG_FIXED = ("run_id", "_step", "_load_id")
_LONG = pa.schema([TABLES["history_long"].schema.field(name) for name in (*_LONG_FIXED, "key")])
_LONG = _LONG.append(pa.field("value", DOUBLE))


def united(groups: Sequence[StagedGroup], columns: Sequence[str]) -> pa.RecordBatchReader:
    """All rows in these columns; what a group lacks is null."""
    fixed = TABLES["history"].schema
    schema = pa.schema(
        [fixed.field(name) if name in fixed.names else pa.field(name, DOUBLE) for name in columns]
    )
    return pa.RecordBatchReader.from_batches(schema, _united(groups, schema))


def melted(groups: Sequence[StagedGroup], columns: Iterable[str]) -> pa.RecordBatchReader:
    """One row for each value in these columns: run_id, _step, _load_id, key, value."""
    return pa.RecordBatchReader.from_batches(_LONG, _melted(groups, frozenset(columns)))


def _united(groups: Sequence[StagedGroup], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    # Full batches: a hundred columns of few rows cost as much as of many.
    rows_at_once = max(_CELLS_AT_ONCE // len(schema), 1)
    waiting: list[pa.Table] = []
    rows = 0
    for group in groups:
        names = [name for name in schema.names if name in group.schema.names]
        for batch in group.iter_batches(names, rows_at_once):
            waiting.append(pa.Table.from_batches([batch]))
            rows += batch.num_rows
            if rows >= rows_at_once:
                yield from _together(waiting, schema)
                waiting, rows = [], 0
    if waiting:
        yield from _together(waiting, schema)


def _together(tables: Sequence[pa.Table], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    table = pa.concat_tables([schema.empty_table(), *tables], promote_options="default")
    yield from table.cast(schema).combine_chunks().to_batches()


def _melted(groups: Sequence[StagedGroup], columns: frozenset[str]) -> Iterator[pa.RecordBatch]:
    for group in groups:
        past_cap = [name for name in group.dynamic if name in columns]
        if not past_cap:
            continue
        rows_at_once = max(_CELLS_AT_ONCE // len(past_cap), 1)
        for batch in group.iter_batches([*_LONG_FIXED, *past_cap], rows_at_once):
            yield from _long(batch, past_cap)


def _long(batch: pa.RecordBatch, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    fixed = batch.select(list(_LONG_FIXED))
    for name in columns:
        values = batch[name]
        is_there = values.is_valid()
        kept = fixed.filter(is_there)
        if kept.num_rows:
            key = pa.repeat(staged_key(name) or "", kept.num_rows)
            yield pa.record_batch([*kept.columns, key, values.filter(is_there)], schema=_LONG)
