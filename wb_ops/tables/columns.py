"""One logged key's values as an Arrow column, in one of a few canonical forms.

The forms are int64, float64, bool, string, null, and *JSON cells*: a string column whose field
metadata `{b"wb_ops": b"json"}` says that each cell is JSON text. JSON cells hold whatever fits no
other form: lists, objects, keys whose values differ in type, integers that are no exact double
beside doubles. A cell's text is Python's compact ASCII form with bare `NaN` and `Infinity`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from wb_ops.tables.values import is_media, parse_json

# every integer up to here is an exact double, as is every one that the server's JavaScript keeps
MAX_EXACT_INT = 2**53

_MARK = b"wb_ops"
_JSON_MARK = {_MARK: b"json"}
_NUMBER_CELL = "^[-0-9NI]"


@dataclass(frozen=True, slots=True)
class Column:
    """A column in a canonical form; `is_json` tells JSON cells from plain text."""

    data: pa.ChunkedArray
    is_json: bool = False

    def field(self, name: str) -> pa.Field:
        """Describe the column in a schema."""
        return pa.field(name, self.data.type, metadata=_JSON_MARK if self.is_json else None)

    def values(self) -> list[object]:
        """Give the Python values, None where nothing was logged."""
        is_number = self.data.type in (pa.int64(), pa.float64())
        if is_number and not self.data.null_count:
            # many times faster than to_pylist, with the same values
            numbers: list[object] = self.data.to_numpy().tolist()
            return numbers
        values: list[object] = self.data.to_pylist()
        if not self.is_json:
            return values
        return [None if cell is None else parse_json(str(cell)) for cell in values]


def chunked(values: Sequence[object], type_: pa.DataType) -> pa.ChunkedArray:
    """Build a column; Arrow itself cuts text of more than 2 GB into chunks."""
    array = pa.array(values, type_)
    return array if isinstance(array, pa.ChunkedArray) else pa.chunked_array([array])


def json_text(value: object) -> str:
    """Write one JSON cell."""
    return json.dumps(value, separators=(",", ":"), default=_text_of)


def canonical_column(field: pa.Field, data: pa.ChunkedArray, exact_text: bool) -> Column:
    """Bring a column of any Arrow type into a canonical form.

    Integers become int64 (JSON cells where a uint64 is too large), floats float64. Lists, structs
    and maps become JSON cells, as does parquet's JSON type; a null member of a struct is left out,
    because parquet cannot tell it from a missing one. Binary that is no UTF-8 keeps its bytes as
    lone surrogates. Decimals, times and the like become text.

    Args:
        field: name, type and metadata of the column.
        data: its values.
        exact_text: False where the writer may have put W&B's typed objects into text (parquet
            exports): text that is a JSON object with `_type` is then read as that object.
    """
    type_ = data.type
    if (field.metadata or {}).get(_MARK) == b"json":
        return Column(data, is_json=True)
    if pa.types.is_dictionary(type_):
        return canonical_column(field, data.cast(type_.value_type), exact_text)
    if pa.types.is_integer(type_):
        return _integers(data)
    if pa.types.is_floating(type_):
        return Column(as_type(data, pa.float64()))
    if pa.types.is_boolean(type_) or pa.types.is_null(type_):
        return Column(data)
    if pa.types.is_nested(type_):
        return _json_column([_json_value(value, type_) for value in data.to_pylist()])
    if isinstance(type_, pa.BaseExtensionType):
        return _extension(field, data, exact_text)
    return _texts(data, exact_text)


def unify(columns: Sequence[Column]) -> Column:
    """Put the columns of one key one below the other, in a form that holds all of them exactly.

    int64 and float64 become float64, but JSON cells where an integer is beyond 2^53. Any other
    mixture becomes JSON cells.
    """
    types = {column.data.type for column in columns if not pa.types.is_null(column.data.type)}
    is_json = any(column.is_json for column in columns)
    if not is_json and types == {pa.int64(), pa.float64()}:
        try:
            return _stack([as_type(column.data, pa.float64()) for column in columns], pa.float64())
        except pa.ArrowInvalid:
            is_json = True
    if is_json or len(types) > 1:
        cells = [_json_cells(column) for column in columns]
        return Column(_stack(cells, pa.string()).data, is_json=True)
    type_ = types.pop() if types else pa.null()
    return _stack([as_type(column.data, type_) for column in columns], type_)


def as_type(data: pa.ChunkedArray, type_: pa.DataType, *, safe: bool = True) -> pa.ChunkedArray:
    """Cast where it is needed: each cast of Arrow waits for its turn among Python's threads."""
    return data if data.type == type_ else data.cast(type_, safe=safe)


def holds_numbers(column: Column) -> bool:
    """Whether any cell is a number; booleans are none."""
    if column.is_json:
        return bool(pc.any(_number_mask(column)).as_py())
    return _is_number(column.data.type) and not _is_empty(column)


def holds_others(column: Column) -> bool:
    """Whether any cell is something else than a number."""
    if column.is_json:
        return bool(pc.any(pc.invert(_number_mask(column))).as_py())
    return not _is_number(column.data.type) and not _is_empty(column)


def _is_number(type_: pa.DataType) -> bool:
    return bool(pa.types.is_integer(type_) or pa.types.is_floating(type_))


def _is_empty(column: Column) -> bool:
    return bool(column.data.null_count == len(column.data))


def _number_mask(column: Column) -> pa.ChunkedArray:
    """Tell which JSON cells hold a number; null where nothing was logged.

    Only a number starts with a digit, a minus sign, N(aN) or I(nfinity).
    """
    return pc.match_substring_regex(column.data, _NUMBER_CELL)


def doubles(column: Column) -> pa.ChunkedArray:
    """Give the numbers of a column as float64, null where there is none.

    Integers beyond 2^53 are rounded; one too large for any double is null.
    """
    if not column.is_json:
        return as_type(column.data, pa.float64(), safe=False)
    cells = pc.if_else(_number_mask(column), column.data, pa.scalar(None, pa.string()))
    values = [None if cell is None else _double(cell) for cell in cells.to_pylist()]
    return chunked(values, pa.float64())


def is_exact(column: Column) -> bool:
    """Whether `doubles` gives every cell exactly; of JSON cells only `inexact_mask` can tell."""
    if column.is_json:
        return False
    return pa.types.is_floating(column.data.type) or fits_doubles(column.data)


def inexact_mask(column: Column) -> pa.ChunkedArray:
    """Tell which cells `doubles` does not give exactly: non-numbers, integers beyond 2^53.

    Only for columns that `is_exact` says no to: it would call every float inexact.
    """
    if column.is_json:
        inexact = [value is not None and not _fits_a_double(value) for value in column.values()]
        return chunked(inexact, pa.bool_())
    if pa.types.is_integer(column.data.type):
        beyond = pc.or_(
            pc.greater(column.data, MAX_EXACT_INT), pc.less(column.data, -MAX_EXACT_INT)
        )
        return beyond.fill_null(False)
    return column.data.is_valid()


def fits_doubles(data: pa.ChunkedArray) -> bool:
    """Tell whether a column is of integers that doubles hold exactly."""
    if not pa.types.is_integer(data.type):
        return False
    bounds = pc.min_max(data).as_py()
    low, high = bounds["min"], bounds["max"]
    return low is None or (low >= -MAX_EXACT_INT and high <= MAX_EXACT_INT)


def _double(cell: str) -> float | None:
    number = parse_json(cell)
    try:
        # from the integer, not from its text: float("1" * 400) is inf
        return float(number) if isinstance(number, (int, float)) else None
    except OverflowError:
        return None


def _fits_a_double(value: object) -> bool:
    if isinstance(value, bool):
        return False
    return isinstance(value, float) or (isinstance(value, int) and abs(value) <= MAX_EXACT_INT)


def _integers(data: pa.ChunkedArray) -> Column:
    try:
        return Column(as_type(data, pa.int64()))
    except pa.ArrowInvalid:
        return Column(_json_cells(Column(data)), is_json=True)


def _extension(field: pa.Field, data: pa.ChunkedArray, exact_text: bool) -> Column:
    texts = data.cast(data.type.storage_type)
    if data.type.extension_name != "arrow.json":
        return canonical_column(field, texts, exact_text)
    return _json_column([None if text is None else parse_json(text) for text in texts.to_pylist()])


def _texts(data: pa.ChunkedArray, exact_text: bool) -> Column:
    try:
        texts = as_type(data, pa.string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):  # binary that is no UTF-8, intervals
        return _json_column(data.to_pylist())
    if exact_text or not _may_hold_media(texts):
        return Column(texts)
    return _json_column([_media_or_text(text) for text in texts.to_pylist()])


def _may_hold_media(texts: pa.ChunkedArray) -> bool:
    is_suspect = pc.and_(pc.starts_with(texts, "{"), pc.match_substring(texts, '"_type"'))
    return bool(pc.any(is_suspect).as_py())


def _media_or_text(text: str | None) -> object:
    if text is None or not text.startswith("{"):
        return text
    try:
        value = parse_json(text)
    except ValueError:
        return text
    return value if is_media(value) else text


def _json_column(values: Sequence[object]) -> Column:
    cells = [None if value is None else json_text(value) for value in values]
    return Column(chunked(cells, pa.string()), is_json=True)


def _json_cells(column: Column) -> pa.ChunkedArray:
    type_ = column.data.type
    if column.is_json or pa.types.is_null(type_) or pa.types.is_integer(type_):
        return as_type(column.data, pa.string())  # an integer's text is its JSON text
    return _json_column(column.values()).data


def _stack(pieces: Sequence[pa.ChunkedArray], type_: pa.DataType) -> Column:
    chunks = [chunk for piece in pieces for chunk in piece.chunks]
    return Column(pa.chunked_array(chunks, type=type_))


def _json_value(value: object, type_: pa.DataType) -> object:
    """The JSON value of a nested Arrow value: structs without nulls, maps as objects."""
    if pa.types.is_struct(type_) and isinstance(value, dict):
        return {
            field.name: _json_value(value[field.name], field.type)
            for field in type_
            if value[field.name] is not None
        }
    if pa.types.is_map(type_) and isinstance(value, list):
        return {str(key): _json_value(item, type_.item_type) for key, item in value}
    if isinstance(value, list):
        return [_json_value(item, type_.value_type) for item in value]
    return value


def _text_of(value: object) -> str:
    """Text for what Arrow knows and JSON does not: bytes, times, decimals."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    return str(value)
