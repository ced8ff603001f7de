"""Leaves of config and summary -> the `runs_flat` table: a column for each, fast to query."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence

import pyarrow as pa

from wb_ops.tables.schemas import DOUBLE, RUNS_FLAT, TEXT
from wb_ops.tables.values import decode_document, escape_text

MAX_LEAVES = 500

Leaves = dict[str, object]


def flat_table(
    rows: pa.Table,
    number_name: Callable[[str], str],
    text_name: Callable[[str], str],
    max_leaves: int = MAX_LEAVES,
    known: Callable[[], Collection[str]] = frozenset,
) -> pa.Table:
    """Turn rows of `runs` into rows of `runs_flat`, in the same order.

    A leaf is a number, text or boolean of the config or summary, at any depth of objects, and is
    called `config.optim.lr`, `summary.loss`. Numbers go to a DOUBLE column (an integer beyond
    2^53 is rounded there), other scalars to a text column; a leaf that holds both has both.
    Lists, media, null and leaves that no row holds have no column. Of more than `max_leaves` the
    known ones and the most frequent others are kept; the JSON columns of `runs` hold all.

    Args:
        rows: rows in the schema `RUNS`.
        number_name, text_name: from a leaf to the name of its column.
        max_leaves: bound on the leaves of this table that are not known.
        known: gives the leaves that have a column already; called only where there are too many.
    """
    leaves = [
        run_leaves(config, summary, floats)
        for config, summary, floats in zip(
            *(rows[name].to_pylist() for name in ("config", "summary", "_floats")), strict=True
        )
    ]
    names = [RUNS_FLAT.field("run_id")]
    columns: list[pa.ChunkedArray | pa.Array] = [rows["run_id"]]
    for leaf in _chosen(leaves, max_leaves, known):
        values = [row.get(leaf) for row in leaves]
        numbers = [value if isinstance(value, float) else None for value in values]
        texts = [value if isinstance(value, str) else None for value in values]
        for name, type_, cells in (
            (number_name(leaf), DOUBLE, numbers),
            (text_name(leaf), TEXT, texts),
        ):
            if any(cell is not None for cell in cells):
                names.append(pa.field(name, type_))
                columns.append(pa.array(cells, type_))
    names.append(RUNS_FLAT.field("_load_id"))
    columns.append(rows["_load_id"])
    return pa.table(columns, schema=pa.schema(names))


def run_leaves(config: str, summary: str, floats: str | None) -> Leaves:
    """The leaves of one run: name -> float or storable text. Arguments are columns of `runs`."""
    # As they are stored: they name the keys in their escaped form.
    pointers: list[str] = json.loads(floats) if floats else []
    found: Leaves = {}
    for name, text in (("config", config), ("summary", summary)):
        _collect(decode_document(text, pointers, f"/{name}"), name, found)
    return found


def _collect(document: object, prefix: str, found: Leaves) -> None:
    dotted: list[tuple[str, str, float | str]] = []
    stack: list[tuple[str, str, object]] = [(prefix, prefix, document)]
    while stack:
        name, exact, value = stack.pop()
        if isinstance(value, Mapping) and "_type" not in value:
            stack += [
                (f"{name}.{key}", f"{exact}.{_escaped(key)}", member)
                for key, member in value.items()
            ]
        elif (leaf := _leaf(value)) is not None:
            if name == exact:
                found[escape_text(name)[0]] = leaf
            else:
                dotted.append((escape_text(name)[0], escape_text(exact)[0], leaf))
    # A member with a dot in its name gives way to a nested one: the dot is escaped then.
    for name, exact, leaf in sorted(dotted):
        found[name if name not in found else exact] = leaf


def _escaped(key: str) -> str:
    return key.replace("\\", "\\\\").replace(".", "\\.")


def _leaf(value: object) -> float | str | None:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return escape_text(value)[0]
    if isinstance(value, (int, float)):
        try:
            return float(value)
        except OverflowError:
            return str(value)
    return None


def _chosen(
    rows: Sequence[Leaves], max_leaves: int, known: Callable[[], Collection[str]]
) -> list[str]:
    counts = Counter(leaf for row in rows for leaf in row)
    if len(counts) <= max_leaves:
        return sorted(counts)
    kept = counts.keys() & set(known())
    new = sorted(counts.keys() - kept, key=lambda leaf: (-counts[leaf], leaf))
    return sorted([*kept, *new[:max_leaves]])
