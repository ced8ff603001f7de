"""The parts of one run's history -> one table with one row for each step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from wb_ops.tables.columns import Column, as_type, canonical_column, unify
from wb_ops.tables.live import LIVE_MARK
from wb_ops.tables.values import escape_text

# the result of a merge: its names and texts are exact, like those of live rows
MERGED_MARK = {b"wb_ops": b"merged"}

_Indices = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class MergedHistory:
    """One run's history with one row for each step, and what the merge found.

    Attributes:
        table: `_step` (int64, strictly increasing) first, then the logged keys in the forms of
            `tables.columns`.
        rows_read: rows in the parts.
        repeated_rows: rows in the parts that equal another one of the same step.
        distinct_steps: rows in `table`.
        overwritten_cells: values replaced by a later value of the same step that differs.
        first_step: lowest step, None without rows.
        last_step: highest step, None without rows.
    """

    table: pa.Table
    rows_read: int
    repeated_rows: int
    distinct_steps: int
    overwritten_cells: int
    first_step: int | None
    last_step: int | None


@dataclass(frozen=True, slots=True)
class _Part:
    columns: dict[str, Column]
    rows: int
    first_step: int
    is_live: bool


def merge_parts(parts: Sequence[pa.Table], *, in_order: bool = False) -> MergedHistory:
    """Merge parquet parts and live rows of one run by step.

    Parts are ordered by their lowest step, tables of `live_table` after all others; the given
    order breaks ties, and is the order where `in_order` says so. Of the values of one step and
    key the last that is not null wins. Columns are unified as `tables.columns.unify` says. JSON
    cells count as different when their texts differ. Where the steps increase strictly nothing
    is copied.

    Raises:
        ValueError: a part has no column `_step`, or a step is null or no integer.
    """
    read = [_read_part(part) for part in parts if part.num_rows]
    if not in_order:
        read.sort(key=lambda part: (part.is_live, part.first_step))
    table, overwritten, repeated = _one_row_a_step(_stacked(read))
    steps = table["_step"]
    return MergedHistory(
        table=table,
        rows_read=sum(part.rows for part in read),
        repeated_rows=repeated,
        distinct_steps=table.num_rows,
        overwritten_cells=overwritten,
        first_step=steps[0].as_py() if table.num_rows else None,
        last_step=steps[-1].as_py() if table.num_rows else None,
    )


def _read_part(table: pa.Table) -> _Part:
    mark = (table.schema.metadata or {}).get(b"wb_ops")
    is_live = mark == LIVE_MARK[b"wb_ops"]
    is_exact = is_live or mark == MERGED_MARK[b"wb_ops"]
    columns = {
        field.name if is_exact else escape_text(field.name)[0]: canonical_column(
            field, data, exact_text=is_exact
        )
        for field, data in zip(table.schema, table.columns, strict=True)
    }
    steps = _steps(columns.pop("_step", None))
    return _Part(
        columns={"_step": steps, **columns},
        rows=table.num_rows,
        first_step=pc.min(steps.data).as_py(),
        is_live=is_live,
    )


def _steps(column: Column | None) -> Column:
    if column is None:
        raise ValueError("history rows have no _step")
    data = column.data
    if data.null_count:
        raise ValueError(f"{data.null_count} of {len(data)} history rows have no _step")
    if not (pa.types.is_integer(data.type) or pa.types.is_floating(data.type)):
        raise ValueError(f"_step is {data.type}, expected integers")
    return Column(as_type(data, pa.int64()))


def _stacked(parts: Sequence[_Part]) -> pa.Table:
    """All rows one below the other, in the order of the parts."""
    names = {name: None for part in parts for name in part.columns}
    columns = {
        name: unify([part.columns.get(name) or _nulls(part.rows) for part in parts])
        for name in names
    } or {"_step": Column(pa.chunked_array([], pa.int64()))}
    schema = pa.schema([column.field(name) for name, column in columns.items()], MERGED_MARK)
    return pa.table([column.data for column in columns.values()], schema=schema)


def _nulls(rows: int) -> Column:
    return Column(pa.chunked_array([pa.nulls(rows)]))


def _one_row_a_step(table: pa.Table) -> tuple[pa.Table, int, int]:
    """Sort by step and merge the rows of each step; also count overwritten cells, equal rows."""
    steps = table["_step"].to_numpy()
    if (steps[1:] > steps[:-1]).all():
        return table, 0, 0
    if (steps[1:] < steps[:-1]).any():
        order = np.argsort(steps, kind="stable")
        table, steps = table.take(pa.array(order)), steps[order]
    starts = np.flatnonzero(np.append(True, steps[1:] != steps[:-1]))
    if len(starts) == len(steps):
        return table, 0, 0
    merged = [_last_of_each_step(column, starts) for column in table.columns]
    overwritten = sum(_count_overwritten(column, starts) for column in table.columns)
    return pa.table(merged, schema=table.schema), overwritten, _count_repeated(table, starts)


def _count_repeated(table: pa.Table, starts: _Indices) -> int:
    sizes = np.diff(np.append(starts, table.num_rows))
    shared = table.filter(pa.array(np.repeat(sizes > 1, sizes)))
    return int(shared.num_rows - shared.group_by(table.column_names).aggregate([]).num_rows)


def _last_of_each_step(column: pa.ChunkedArray, starts: _Indices) -> pa.ChunkedArray:
    """For each group of rows that begins at `starts`, the last value that is not null."""
    is_valid = column.is_valid().to_numpy()
    ends = np.append(starts[1:], len(column)) - 1
    latest = np.maximum.accumulate(np.where(is_valid, np.arange(len(column)), -1))[ends]
    return column.take(pa.array(latest, mask=latest < starts))


def _count_overwritten(column: pa.ChunkedArray, starts: _Indices) -> int:
    valid = np.flatnonzero(column.is_valid().to_numpy())
    group = np.searchsorted(starts, valid, side="right")
    is_replaced = group[1:] == group[:-1]
    old = column.take(pa.array(valid[:-1][is_replaced]))
    new = column.take(pa.array(valid[1:][is_replaced]))
    if pa.types.is_null(column.type) or not len(old):
        return 0
    differs = pc.not_equal(old, new)
    if pa.types.is_floating(column.type):
        differs = pc.and_not(differs, pc.and_(pc.is_nan(old), pc.is_nan(new)))
    return int(pc.sum(differs).as_py())
