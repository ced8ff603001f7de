"""What was logged, as the rows that a warehouse must hold; read by Python's own `json` alone.

`json.loads` takes bare `NaN` and `Infinity`, and integers of any size. A number is expected as
the double nearest to it (an integer beyond all doubles as none), and an integer beyond 2^53 with
all its digits in `_extra` as well, because its double may be another number. What a warehouse
cannot store (NUL, lone surrogates) is expected in its escaped form, special floats in documents as
their names, with a pointer to each.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pyarrow as pa
from logged_rows import dotted

Row = tuple[Any, ...]

_COLUMNS = {
    "steps": ("run_id", "step", "logged_at_us"),
    "numbers": ("run_id", "step", "key", "value"),
    "documents": ("run_id", "place", "document"),
    "floats": ("run_id", "place", "pointer"),
    "labels": ("run_id", "name", "value"),
    "leaves": ("run_id", "key", "number", "text"),
    "system": ("run_id", "at_us", "key", "value"),
}
_TYPES = {
    "step": pa.int64(), "logged_at_us": pa.int64(), "at_us": pa.int64(),
    "value": pa.float64(), "number": pa.float64(),
}  # fmt: skip
# The name of a column of `runs` -> how a seed of the dev server calls it, and what it says if not.
_LABELS = {
    "display_name": ("display_name", None), "state": ("state", "finished"),
    "run_group": ("group", None), "job_type": ("job_type", None), "sweep": ("sweep", None),
    "notes": ("notes", None), "commit": ("commit", None), "username": ("user", "dev"),
}  # fmt: skip


def logged_tables(seeds: Iterable[Mapping[str, Any]]) -> dict[str, pa.Table]:
    """All that these runs logged, as tables of `_COLUMNS`."""
    rows: dict[str, list[Row]] = {name: [] for name in _COLUMNS}
    for seed in seeds:
        run_id = seed["run_id"]
        for name, row in (*_of_history(seed), *_of_run(seed), *_of_system(seed)):
            rows[name].append((run_id, *row))
    return {name: _table(name, found) for name, found in rows.items()}


def count_of_values(tables: Mapping[str, pa.Table]) -> int:
    """Numbers, and the leaves of documents beside them."""
    leaves = sum(
        _leaf_count(json.loads(text)) for text in tables["documents"]["document"].to_pylist()
    )
    return leaves + sum(tables[name].num_rows for name in ("numbers", "system", "labels"))


def _leaf_count(value: Any) -> int:
    members = value.values() if isinstance(value, dict) else value
    return sum(map(_leaf_count, members)) if isinstance(value, dict | list) else 1


def _table(name: str, rows: list[Row]) -> pa.Table:
    columns = list(zip(*rows, strict=True)) or [()] * len(_COLUMNS[name])
    types = {**_TYPES, "value": pa.string()} if name == "labels" else _TYPES
    return pa.table(
        {
            column: pa.array(values, types.get(column, pa.string()))
            for column, values in zip(_COLUMNS[name], columns, strict=True)
        }
    )


def parsed(row: Any) -> Any:
    return json.loads(row, strict=False) if isinstance(row, str) else row


def _of_history(seed: Mapping[str, Any]) -> Iterator[tuple[str, Row]]:
    """Of the values of one step and key the last counts; a row without step has its number."""
    steps: dict[int, dict[str, Any]] = {}
    for number, line in enumerate(seed["history"]):
        row = dict(parsed(line))
        steps.setdefault(int(row.pop("_step", number)), {}).update(dotted(row))
    for step, cells in steps.items():
        time = cells.get("_timestamp")
        yield "steps", (step, None if time is None else _microseconds(time))
        others: dict[str, Any] = {}
        for key, value in cells.items():
            if (double := _double(value)) is not None:
                yield "numbers", (step, _storable(key), double)
            if not _is_number(value) or (isinstance(value, int) and abs(value) > 2**53):
                others[key] = value
        if others:
            yield from _document(others, str(step), "/_extra")


def _of_run(seed: Mapping[str, Any]) -> Iterator[tuple[str, Row]]:
    config = {
        key: member["value"] if isinstance(member, dict) and "value" in member else member
        for key, member in parsed(seed["raw_config"]).items()
        if key not in ("_wandb", "wandb_version")
    }
    summary = parsed(seed["summary"])
    yield from _document(config, "config", "/config")
    yield from _document(summary, "summary", "/summary")
    for name, document in (("config", config), ("summary", summary)):
        yield from (("leaves", row) for row in _leaves(name, document))
    labels = {name: seed.get(field, other) for name, (field, other) in _LABELS.items()}
    if "display_name" not in seed:
        labels["display_name"] = seed["run_id"]
    labels["tags"] = "|".join(seed.get("tags", ())) or None
    yield from (
        ("labels", (name, _storable(text))) for name, text in labels.items() if text is not None
    )


def _of_system(seed: Mapping[str, Any]) -> Iterator[tuple[str, Row]]:
    """Numbers under their dotted names; the later one of a moment counts."""
    found: dict[tuple[int, str], float] = {}
    for row in map(parsed, seed["events"]):
        for key, value in dotted(row).items():
            if not key.startswith("_") and (double := _double(value)) is not None:
                found[_microseconds(row["_timestamp"]), _storable(key)] = double
    return (("system", (*place, value)) for place, value in found.items())


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _double(value: Any) -> float | None:
    try:
        return float(value) if _is_number(value) else None
    except OverflowError:
        return None


def _microseconds(seconds: float) -> int:
    """In doubles, as `_timestamp` is one: its own steps are a quarter of a microsecond."""
    return round(seconds * 1e6)


def _leaves(name: str, document: dict[str, Any]) -> list[Row]:
    """Scalars at any depth of objects: what `runs_flat` has columns for.

    A name with a dot of its own gives way to a nested one: the dot is escaped then.
    """
    found: dict[str, Row] = {}
    for plain, escaped, value in sorted(_scalars(name, name, document), key=_has_own_dot):
        key = _storable(plain if plain not in found else escaped)
        is_text = isinstance(value, bool | str)
        text = _storable(value if isinstance(value, str) else str(value).lower())
        found[key] = (key, None if is_text else _double(value), text if is_text else None)
    return list(found.values())


def _has_own_dot(scalar: tuple[str, str, Any]) -> tuple[bool, str]:
    return scalar[0] != scalar[1], scalar[0]


def _scalars(plain: str, escaped: str, value: Any) -> Iterator[tuple[str, str, Any]]:
    if isinstance(value, dict) and "_type" not in value:
        for key, member in value.items():
            own = key.replace("\\", "\\\\").replace(".", "\\.")
            yield from _scalars(f"{plain}.{key}", f"{escaped}.{own}", member)
    elif isinstance(value, bool | str) or _is_number(value):
        yield plain, escaped, value


def _document(document: dict[str, Any], place: str, pointer: str) -> Iterator[tuple[str, Row]]:
    pointers: list[str] = []
    text = json.dumps(_strict(document, pointer, pointers), ensure_ascii=False)
    yield "documents", (place, text)
    yield from (("floats", (place, found)) for found in pointers)


def _strict(value: Any, pointer: str, pointers: list[str]) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        pointers.append(pointer)
        return {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}[str(value)]
    if isinstance(value, dict):
        return {
            key: _strict(member, f"{pointer}/{key.replace('~', '~0').replace('/', '~1')}", pointers)
            for key, member in ((_storable(key), member) for key, member in value.items())
        }
    if isinstance(value, list):
        return [_strict(member, f"{pointer}/{at}", pointers) for at, member in enumerate(value)]
    return _storable(value) if isinstance(value, str) else value


def _storable(text: str) -> str:
    return re.sub("[\0\ud800-\udfff\u241b]", lambda found: f"\u241b{ord(found[0]):04X}", text)
