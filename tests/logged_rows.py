"""Rows as they were logged, in the form in which they are compared with what is read."""

from __future__ import annotations

import json
from typing import Any


def same(one: Any, other: Any, *, is_loose: bool = False) -> bool:
    """Equal in value and type. NaN is NaN, -0.0 is not 0.0, and 1 is 1.0 only if `is_loose`."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(
            same(member, other[key], is_loose=is_loose) for key, member in one.items()
        )
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(
            same(*pair, is_loose=is_loose) for pair in zip(one, other, strict=True)
        )
    if is_loose and {type(one), type(other)} == {int, float}:
        return bool(one == other)
    return type(one) is type(other) and repr(one) == repr(other)


def dotted(row: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Plain objects become dotted keys, as in W&B's exports; null is "not logged"."""
    cells: dict[str, Any] = {}
    for key, value in row.items():
        if isinstance(value, dict) and value and "_type" not in value:
            cells |= dotted(value, f"{prefix}{key}.")
        elif value is not None:
            cells[prefix + key] = value
    return cells


def with_number(line: str) -> str:
    """Drop a `_step` that is no integer: a text of a CSV, or one of W&B's own odd fixtures."""
    row = json.loads(line, strict=False)
    if isinstance(row, dict) and type(row.get("_step", 0)) is not int:
        return json.dumps({key: value for key, value in row.items() if key != "_step"})
    return line
