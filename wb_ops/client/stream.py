"""One history as a stream of record batches in one schema, however long it is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from wb_ops.client.parts import CELLS_PER_MERGE, ROWS_PER_MERGE, Piece
from wb_ops.client.raw import RawHistory
from wb_ops.errors import MalformedResponse
from wb_ops.tables.columns import Column, canonical_column, unify
from wb_ops.tables.merge import MERGED_MARK
from wb_ops.tables.values import escape_text


def read_stream(raw: RawHistory) -> pa.RecordBatchReader:
    """Give the selected rows in `_step` order; the files are removed at the end of the stream.

    A short history is in memory afterwards and its files are removed. Of a long one memory holds
    one group at a time (see `RawHistory.iter_merged`). The columns and values are those of
    `history_table`.

    Raises:
        MalformedResponse: rows that cannot be read, here or while the stream is read (retry:
            backoff).
    """
    if is_short(raw):
        with raw:
            return raw.select(raw.merged().table).to_reader()
    schema = _schema(raw)
    batches = _batches(raw, schema)
    # Started, it closes the files also where the stream is thrown away unread.
    next(batches)
    return pa.RecordBatchReader.from_batches(schema, batches)


def is_short(raw: RawHistory) -> bool:
    """Whether the whole history may be held in memory."""
    rows = sum(piece.rows for piece in raw.pieces)
    return rows <= ROWS_PER_MERGE and sum(piece.cells for piece in raw.pieces) <= CELLS_PER_MERGE


def _batches(raw: RawHistory, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    with raw:
        yield pa.RecordBatch.from_pylist([], schema=schema)
        for merged in raw.iter_merged():
            yield from _fitted(raw.select(merged.table), schema).to_batches()


def _fitted(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Bring a group into the schema of all groups."""
    columns = []
    for field in schema:
        if field.name not in table.column_names:
            columns.append(pa.nulls(table.num_rows, field.type))
            continue
        held = table.schema.field(field.name)
        column = unify([canonical_column(held, table[field.name], True), _no_values(field)])
        if column.data.type != field.type:
            raise MalformedResponse(f"The key {field.name!r} is not what the files announced.")
        columns.append(column.data)
    return pa.table(columns, schema=schema)


def _schema(raw: RawHistory) -> pa.Schema:
    """The schema of the selected rows of all groups together."""
    forms: dict[str, list[Column]] = {}
    for group in raw.groups():
        for name, column in _group_forms(raw, group):
            forms.setdefault(name, []).append(column)
    fields = [unify(_distinct(columns)).field(name) for name, columns in forms.items()]
    schema = pa.schema(fields, MERGED_MARK)
    return raw.select(schema.empty_table()).schema


def _group_forms(raw: RawHistory, group: Sequence[Piece]) -> Iterator[tuple[str, Column]]:
    if any(piece.is_live for piece in group):
        # What a live key is depends on all its values.
        table = raw.merge(group).table
        for name in table.column_names:
            yield name, _shortest(table.schema.field(name), table[name])
        return
    for piece in group:
        for name in piece.column_names(raw.selection.columns):
            yield escape_text(name)[0], _piece_form(raw, piece, name)


def _piece_form(raw: RawHistory, piece: Piece, name: str) -> Column:
    """A column of a row group in its canonical form, with as few values as tell the form."""
    field = piece.field(name)
    if name == "_step":
        return Column(pa.chunked_array([], pa.int64()))
    if not _depends_on_values(field.type):
        return canonical_column(field, pa.chunked_array([], field.type), exact_text=False)
    if raw.selection.is_whole and pa.types.is_signed_integer(field.type):
        bounds = piece.bounds(name)
        if bounds is not None:
            return Column(pa.chunked_array([pa.array(bounds, pa.int64())]))
    names = list(dict.fromkeys(("_step", name)))
    column = canonical_column(field, raw.selection.within(piece.read(names))[name], False)
    return Column(_extremes(column), column.is_json)


def _depends_on_values(type_: pa.DataType) -> bool:
    """Text may hold media; integers may be too large for the form that they share with floats."""
    is_plain = pa.types.is_floating(type_) or pa.types.is_boolean(type_) or pa.types.is_null(type_)
    return not (is_plain or pa.types.is_nested(type_))


def _shortest(field: pa.Field, data: pa.ChunkedArray) -> Column:
    column = canonical_column(field, data, exact_text=True)
    return Column(_extremes(column), column.is_json)


def _extremes(column: Column) -> pa.ChunkedArray:
    """The values that decide what a column can be joined with: an integer's lowest and highest."""
    if not pa.types.is_int64(column.data.type):
        return column.data.slice(0, 0)
    bounds = pc.min_max(column.data)
    return pa.chunked_array([pa.array([bounds["min"].as_py(), bounds["max"].as_py()], pa.int64())])


def _distinct(columns: Iterable[Column]) -> list[Column]:
    """One column of each form; of integers all, for their values."""
    seen: set[tuple[pa.DataType, bool]] = set()
    kept = []
    for column in columns:
        form = (column.data.type, column.is_json)
        if form not in seen or pa.types.is_int64(column.data.type):
            seen.add(form)
            kept.append(column)
    return kept


def _no_values(field: pa.Field) -> Column:
    return canonical_column(field, pa.chunked_array([], field.type), exact_text=True)
