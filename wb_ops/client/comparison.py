"""Whether two JSON texts hold the same value, typed as W&B types it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from wb_ops.tables.values import float_name, parse_json


def same_json(one: str | None, other: str | None) -> bool:
    """Whether two JSON texts hold the same typed value.

    NaN equals NaN and no text; 1 differs from true; 1 and 1.0 are the same number, because a
    server may write a whole float as an int.
    """
    if one is None or other is None:
        return one is other
    return one == other or _canonical(parse_json(one)) == _canonical(parse_json(other))


def holds(read: str | None, sent: str | None) -> bool:
    """Whether what is read is what was sent: a server may give a special float as a text."""
    if read is None or sent is None:
        return read is sent
    if read == sent:
        return True
    value = parse_json(sent)
    return _canonical(parse_json(read)) in (_canonical(value), _canonical(_with_texts(value)))


def _with_texts(value: Any) -> Any:
    """The value as a server gives it that has no special floats."""
    if isinstance(value, float) and not math.isfinite(value):
        return float_name(value)
    if isinstance(value, Mapping):
        return {name: _with_texts(member) for name, member in value.items()}
    return [_with_texts(member) for member in value] if isinstance(value, list) else value


def _canonical(value: Any) -> str:
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return json.dumps(value)
    if isinstance(value, int | float):
        return _canonical_number(value)
    if isinstance(value, Mapping):
        members = sorted((name, _canonical(member)) for name, member in value.items())
        return "{" + ",".join(f"{json.dumps(name)}:{text}" for name, text in members) + "}"
    return "[" + ",".join(_canonical(member) for member in value) + "]"


def _canonical_number(value: float) -> str:
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return json.dumps(value)
