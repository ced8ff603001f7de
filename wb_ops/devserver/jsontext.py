"""JSON documents that are kept as the text they arrived in.

W&B's ``JSONString`` values carry bare ``NaN`` and ``Infinity`` and integers beyond 2^53; only the
text itself gives back exactly what was logged. The outer answer is strict JSON.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import TypeAlias

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"
JsonSource: TypeAlias = "str | Mapping[str, object]"


class JsonText:
    """A part of an answer that is a JSON text already."""

    def __init__(self, text: str) -> None:
        self.text = text


def to_text(value: object) -> str:
    """Keep a JSON text as it is; write anything else as one (NaN and Infinity bare)."""
    return value if isinstance(value, str) else json.dumps(value)


def parse(text: str | None) -> Json:
    """Read a JSON text that may hold NaN, Infinity and control characters."""
    document: Json = json.loads(text, strict=False) if text else None
    return document


def parse_object(text: str | None) -> dict[str, Json]:
    """Read a JSON text as an object; null, nothing and other kinds count as an empty one."""
    document = parse(text)
    return document if isinstance(document, dict) else {}


def strict(value: Json) -> Json:
    """Replace NaN and the infinities by their names, so that strict JSON can hold the value."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
    if isinstance(value, dict):
        return {key: strict(item) for key, item in value.items()}
    if isinstance(value, list):
        return [strict(item) for item in value]
    return value


def flatten(row: Mapping[str, Json]) -> dict[str, Json]:
    """Join the keys of nested plain dicts with dots, as W&B does; typed values stay whole."""
    if dict not in map(type, row.values()):
        return dict(row)
    flat: dict[str, Json] = {}
    for key, value in row.items():
        if isinstance(value, dict) and value and "_type" not in value:
            for inner, item in flatten(value).items():
                _put(flat, f"{key}.{inner}", item)
        else:
            _put(flat, key, value)
    return flat


def _put(flat: dict[str, Json], key: str, value: Json) -> None:
    if key in flat:
        raise KeyCollisionError(key)
    flat[key] = value


class KeyCollisionError(ValueError):
    """One row holds both a key with dots and the nested dict that flattens to it."""
