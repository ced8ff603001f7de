"""Live history rows (JSON, one object a row) -> an Arrow table with the logged keys as columns."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain

import pyarrow as pa

from wb_ops.tables.columns import Column, chunked, fits_doubles, json_text
from wb_ops.tables.plain_rows import read_plain
from wb_ops.tables.values import FLOAT_NAMES, escape_text, parse_json, parse_lines, unescape_text

# in a table's schema metadata: live rows come after parquet, and their names and texts are exact
LIVE_MARK = {b"wb_ops": b"live"}

_NUMBERS = {int, float}

# Rows are looked up key by key while a key is in at least one of so many rows.
MAX_SPARSENESS = 8


@dataclass(slots=True)
class _Cells:
    """The values of one key and the rows that hold them."""

    rows: list[int] = field(default_factory=list)
    values: list[object] = field(default_factory=list)

    def add(self, row: int, value: object) -> None:
        self.rows.append(row)
        self.values.append(value)

    def spread(self, values: Sequence[object], row_count: int) -> list[object]:
        """Put values into a list of all rows, None where the key was not logged."""
        if len(values) == row_count:
            return list(values)
        spread: list[object] = [None] * row_count
        for row, value in zip(self.rows, values, strict=True):
            spread[row] = value
        return spread


@dataclass(frozen=True, slots=True)
class KeyForms:
    """Decided by all rows: texts under `numeric` names are floats, `unclear` keys stay whole."""

    numeric: frozenset[str]
    unclear: frozenset[str]


def live_table(
    rows: Sequence[str | Mapping[str, object]], forms: KeyForms | None = None
) -> pa.Table:
    """Turn history rows as the server's JSON gives them into a table, one row each, in order.

    A key becomes a column in one of the forms of `tables.columns`, named by the key in
    `escape_text` form; null is "not logged". Objects without `_type` are flattened with dots, as
    in W&B's parquet, except under a key one of whose dotted names would then mean two things;
    that key stays one column of JSON cells. A key whose values are numbers is numeric, also
    where some are the strings "NaN", "Infinity", "-Infinity"; one that has only such strings
    stays text, as it was logged. Integers beside floats become floats.

    Args:
        rows: JSON objects as text, bare NaN allowed, or parsed.
        forms: what all rows of the history say of its keys (`tables.live_forms`), where these are
            some of them.

    Raises:
        ValueError: a row is no JSON object.

    Source: wandb 0.31.0 writes bare NaN into history rows; the server is known to return special
    floats as strings in places.
    """
    plain = read_plain(rows)
    if plain is not None and not _holds_numeric_texts(plain, forms):
        return plain.replace_schema_metadata(LIVE_MARK)
    numeric = None if forms is None else forms.numeric
    typed = {
        escape_text(key)[0]: _column(cells, len(rows), None if numeric is None else key in numeric)
        for key, cells in _flat(columns_of(rows), forms).items()
    }
    schema = pa.schema([column.field(name) for name, column in typed.items()], LIVE_MARK)
    return pa.table([column.data for column in typed.values()], schema=schema)


def live_parts(plain: Sequence[pa.Table], forms: KeyForms | None = None) -> list[pa.Table] | None:
    """Mark tables that `read_plain` made of parts of a run's rows, to be merged as they are.

    None where the rows must be read together by `live_table`, because the form of a key depends
    on all its values: a text "NaN" beside numbers is a number, and integers beyond 2^53 beside
    floats keep their digits. `forms` as for `live_table`.
    """
    if any(_holds_numeric_texts(table, forms) for table in plain):
        return None
    columns: dict[str, list[pa.ChunkedArray]] = {}
    for table in plain:
        for name in table.column_names:
            columns.setdefault(name, []).append(table[name])
    if not all(map(_are_alike, columns.values())):
        return None
    return [table.replace_schema_metadata(LIVE_MARK) for table in plain]


def _holds_numeric_texts(plain: pa.Table, forms: KeyForms | None) -> bool:
    return forms is not None and any(
        pa.types.is_string(field.type) and unescape_text(field.name) in forms.numeric
        for field in plain.schema
    )


def _are_alike(columns: Sequence[pa.ChunkedArray]) -> bool:
    types = {column.type for column in columns}
    if types == {pa.int64(), pa.float64()}:
        return all(fits_doubles(one) for one in columns if pa.types.is_integer(one.type))
    return len(types) == 1


def _members(rows: Sequence[str | Mapping[str, object]]) -> list[Mapping[str, object]]:
    texts = [row for row in rows if isinstance(row, str)]
    parsed = parse_lines(texts) if len(texts) == len(rows) else rows
    members: list[Mapping[str, object]] = []
    for row in parsed:
        one = parse_json(row) if isinstance(row, str) else row
        if not isinstance(one, Mapping):
            raise ValueError(f"a history row is a JSON {type(one).__name__}, expected an object")
        members.append(one)
    return members


def columns_of(texts: Sequence[str | Mapping[str, object]]) -> dict[str, _Cells]:
    """Give the values of each key that has any, in the order in which the keys come first.

    Raises:
        ValueError: a row is no JSON object.
    """
    rows = _members(texts)
    keys = dict.fromkeys(chain.from_iterable(rows))
    if sum(map(len, rows)) * MAX_SPARSENESS >= len(rows) * len(keys):
        return {key: cells for key in keys if (cells := _cells(rows, key)).rows}
    columns: dict[str, _Cells] = {}
    for index, row in enumerate(rows):
        for key, value in row.items():
            if value is not None:
                columns.setdefault(key, _Cells()).add(index, value)
    return columns


def _cells(rows: Sequence[Mapping[str, object]], key: str) -> _Cells:
    values = [row.get(key) for row in rows]
    if None not in values:
        return _Cells(list(range(len(values))), values)
    held = [index for index, value in enumerate(values) if value is not None]
    return _Cells(held, [values[index] for index in held])


def _flat(columns: Mapping[str, _Cells], forms: KeyForms | None) -> dict[str, _Cells]:
    """Flatten the keys that hold plain objects, in place of those keys."""
    leaves = {key: leaves_of(key, cells) for key, cells in columns.items() if is_nested(cells)}
    unclear = unclear_keys(columns, leaves) if forms is None else forms.unclear
    flat = {key: cells for key, cells in columns.items() if key not in leaves}
    for key in sorted(leaves):
        names = leaves[key]
        flat.update({key: columns[key]} if key in unclear or names is None else names)
    return flat


def unclear_keys(
    columns: Collection[str], leaves: Mapping[str, Collection[str] | None]
) -> frozenset[str]:
    """Return the nested keys one of whose dotted names (None: in one row) means two things."""
    taken = {key for key in columns if key not in leaves}
    unclear = set()
    for key in sorted(leaves):
        names = leaves[key]
        if names is None or any(
            name in taken or (name in columns and name != key) for name in names
        ):
            unclear.add(key)
            names = [key]
        taken.update(names)
    return frozenset(unclear)


def is_nested(cells: _Cells) -> bool:
    """Whether any value is an object to be flattened."""
    return dict in set(map(type, cells.values)) and any(map(_is_plain_object, cells.values))


def _is_plain_object(value: object) -> bool:
    return isinstance(value, dict) and bool(value) and "_type" not in value


def leaves_of(key: str, cells: _Cells) -> dict[str, _Cells] | None:
    """Give the dotted names under a key, or None where one name means two values of a row."""
    names: dict[str, _Cells] = {}
    for row, value in zip(cells.rows, cells.values, strict=True):
        stack = [(key, value)]
        while stack:
            name, value = stack.pop()
            if isinstance(value, dict) and _is_plain_object(value):
                stack.extend((f"{name}.{member}", v) for member, v in reversed(value.items()))
            elif value is not None:
                leaf = names.setdefault(name, _Cells())
                if leaf.rows and leaf.rows[-1] == row:
                    return None
                leaf.add(row, value)
    return names


def _column(cells: _Cells, row_count: int, is_numeric: bool | None) -> Column:
    values, type_ = _typed(cells.values, is_numeric)
    if type_ is not None:
        try:
            return Column(chunked(cells.spread(values, row_count), type_))
        except (OverflowError, pa.ArrowInvalid, UnicodeEncodeError):
            pass  # an integer beyond the type, or text with lone surrogates: JSON holds both
    texts = cells.spread([json_text(value) for value in values], row_count)
    return Column(chunked(texts, pa.string()), is_json=True)


def _typed(
    values: list[object], is_numeric: bool | None
) -> tuple[list[object], pa.DataType | None]:
    """The values, special floats as floats if numeric, and the Arrow type that holds them all.

    `is_numeric` says whether texts stand for floats, None that these values do.
    """
    kinds = set(map(type, values))
    if is_numeric is None or str not in kinds:
        is_numeric = kinds <= {*_NUMBERS, str} and _are_numeric(values)
    if is_numeric:
        numbers = (
            [float(v) if isinstance(v, str) else v for v in values] if str in kinds else values
        )
        return numbers, pa.int64() if kinds == {int} else pa.float64()
    if kinds == {str}:
        return values, pa.string()
    return values, pa.bool_() if kinds == {bool} else None


def _are_numeric(values: list[object]) -> bool:
    """Whether texts like "NaN" stand for floats here: some other row of the key is a number."""
    kinds = set(map(type, values))
    if str not in kinds:
        return bool(kinds) and kinds <= _NUMBERS
    has_number = any(type(value) in _NUMBERS for value in values)
    return has_number and all(type(value) in _NUMBERS or value in FLOAT_NAMES for value in values)
