"""All live rows of a history, chunk by chunk -> the forms of its keys, so that each chunk has them.

What a key is depends on all its values: a text "NaN" is a number beside numbers, an object is not
flattened where a dotted name would mean two things. Memory holds one chunk and the names.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from wb_ops.tables.live import KeyForms, columns_of, is_nested, leaves_of, unclear_keys
from wb_ops.tables.values import FLOAT_NAMES, unescape_text

Kind = Literal["number", "float text", "other"]
_FLOAT_NAMES = pa.array(sorted(FLOAT_NAMES))


@dataclass(slots=True)
class LiveForms:
    """What was seen of each key, and of each dotted name under it."""

    _leaves: dict[str, set[str] | None] = field(default_factory=dict)
    _kinds: dict[tuple[str, str], set[Kind]] = field(default_factory=dict)

    def add(self, rows: Sequence[str]) -> None:
        """Look at rows as the server's JSON gives them.

        Raises:
            ValueError: a row is no JSON object.
        """
        for key, cells in columns_of(rows).items():
            if not is_nested(cells):
                self._note(key, key, map(_kind, cells.values))
                continue
            self._note(key, key, ())
            names = leaves_of(key, cells)
            known = self._leaves.setdefault(key, set())
            if names is None or known is None:
                self._leaves[key] = None
                continue
            known.update(names)
            for name, leaf in names.items():
                self._note(key, name, map(_kind, leaf.values))

    def add_plain(self, table: pa.Table) -> None:
        """Look at rows that `read_plain` made a table of."""
        for name, column in zip(table.column_names, table.columns, strict=True):
            key = unescape_text(name)
            self._note(key, key, _kinds(column))

    def decided(self) -> KeyForms:
        """Decide by what was seen, as `live_table` does by its rows."""
        keys = {key for key, _ in self._kinds}
        leaves = {
            key: None if names is None else names | ({key} if self._kinds[key, key] else set())
            for key, names in self._leaves.items()
        }
        unclear = unclear_keys(keys, leaves)
        found: dict[str, set[Kind]] = {key: {"other"} for key in unclear}
        for (key, name), kinds in self._kinds.items():
            if key not in unclear:
                found.setdefault(name, set()).update(kinds)
        numeric = {name for name, kinds in found.items() if kinds == {"number", "float text"}}
        return KeyForms(frozenset(numeric), unclear)

    def _note(self, key: str, name: str, kinds: Iterable[Kind]) -> None:
        self._kinds.setdefault((key, name), set()).update(kinds)


def _kind(value: object) -> Kind:
    if type(value) in (int, float):
        return "number"
    return "float text" if isinstance(value, str) and value in FLOAT_NAMES else "other"


def _kinds(column: pa.ChunkedArray) -> set[Kind]:
    if not pa.types.is_string(column.type):
        return {"other" if pa.types.is_boolean(column.type) else "number"}
    stands_for_float = pc.is_in(column.drop_null(), value_set=_FLOAT_NAMES)
    kinds: dict[bool, Kind] = {True: "float text", False: "other"}
    return {kinds[found] for found in pc.unique(stands_for_float).to_pylist()}
