"""History rows that Arrow's own JSON reader gives exactly; all others are for `tables.live`.

Arrow reads text to columns without a Python object a cell, and lets other threads run meanwhile.
What it would guess or round is not taken: the answer is then None, and the caller goes the long
way. So these functions decide nothing, they are only faster.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import json as arrow_json

from wb_ops.tables.columns import MAX_EXACT_INT
from wb_ops.tables.values import escape_text

_FORMS = {pa.int64(), pa.float64(), pa.bool_(), pa.string()}
_ONLY_STEPS = arrow_json.ParseOptions(
    explicit_schema=pa.schema([("_step", pa.int64())]), unexpected_field_behavior="ignore"
)


def read_plain(texts: Sequence[str | Mapping[str, object]]) -> pa.Table | None:
    """Read rows whose keys hold numbers, texts or booleans alone; None where any holds more.

    Not taken: rows that are parsed already, nested values, texts that look like times, numbers
    that may be integers beyond 2^53 beside floats, a key twice in a row, and what is no strict
    JSON but for NaN and Infinity.
    """
    table = _read(texts, arrow_json.ParseOptions())
    if table is None:
        return None
    logged = [name for name in table.column_names if not pa.types.is_null(table[name].type)]
    table = table.select(logged)
    if not all(map(_is_exact, table.columns)):
        return None
    return table.rename_columns([escape_text(name)[0] for name in logged])


def read_steps(texts: Sequence[str]) -> list[int] | None:
    """Read the `_step` of each row; None where one has none, or none that is an integer."""
    table = _read(texts, _ONLY_STEPS)
    if table is None or table["_step"].null_count:
        return None
    steps: list[int] = table["_step"].to_numpy().tolist()
    return steps


def _read(
    texts: Sequence[str | Mapping[str, object]], options: arrow_json.ParseOptions
) -> pa.Table | None:
    if set(map(type, texts)) != {str}:
        return None
    joined = "\n".join(cast(Sequence[str], texts))
    # Each line begins an object, so that as many objects as lines are one a line.
    breaks = len(texts) - 1
    if not joined.startswith("{") or not joined.count("\n{") == joined.count("\n") == breaks:
        return None
    try:
        table = arrow_json.read_json(pa.BufferReader(joined.encode()), parse_options=options)
    except (pa.ArrowException, UnicodeEncodeError):
        return None
    return table if table.num_rows == len(texts) else None


def _is_exact(column: pa.ChunkedArray) -> bool:
    if not pa.types.is_floating(column.type):
        return column.type in _FORMS
    # Among floats an integer was made one: without loss only where it is small.
    is_large = pc.and_(pc.is_finite(column), pc.greater_equal(pc.abs(column), MAX_EXACT_INT))
    return not pc.any(is_large).as_py()
