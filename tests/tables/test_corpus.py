"""Real histories, value by value."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

from logged_rows import dotted

from wb_ops.tables.history import history_batch, history_columns, live_table, merge_parts
from wb_ops.tables.names import assign_names
from wb_ops.tables.schemas import HISTORY, check_schema, history_schema
from wb_ops.tables.values import decode_document

OWN = {"_step": "_step", "_timestamp": "_timestamp", "_runtime": "_runtime"}


def comparable(value: object) -> str:
    """Equal exactly for equal values; an integer and the double that equals it are one value."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return repr(float(value)) if is_number and value == float(value) else repr(value)


def logged_rows(path: Path) -> list[dict[str, object]]:
    """The rows of one history; a source without whole steps is counted instead."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    if all(type(row.get("_step")) is int for row in rows):
        return rows
    return [{**row, "_step": index} for index, row in enumerate(rows)]


def expected_cells(rows: list[dict[str, object]]) -> dict[object, dict[str, object]]:
    steps: dict[object, dict[str, object]] = {}
    for row in rows:
        steps.setdefault(row["_step"], {}).update(dotted(row))
    return dict(sorted(steps.items(), key=lambda item: int(str(item[0]))))


def stored_cells(rows: list[dict[str, object]]) -> dict[object, dict[str, object]]:
    table = merge_parts([live_table([json.dumps(row) for row in rows])]).table
    names = assign_names(history_columns(table)[0], {}, HISTORY.names)
    batch = history_batch("r", table, names, None)
    check_schema(batch, history_schema(list(names.values())))
    steps: dict[object, dict[str, object]] = {}
    for row in batch.to_pylist():
        floats = json.loads(row["_floats"] or "[]")
        extra = decode_document(row["_extra"] or "{}", floats, "/_extra")
        assert isinstance(extra, dict)
        numbers = {key: row[name] for key, name in {**OWN, **names}.items()}
        steps[row["_step"]] = dotted({**numbers, **extra})
    return steps


def test_every_value_of_every_real_history_is_stored(corpus_histories: list[Path]) -> None:
    for path in corpus_histories:
        rows = logged_rows(path)
        expected, stored = expected_cells(rows), stored_cells(rows)
        assert list(stored) == list(expected), path.name
        for step, cells in expected.items():
            found = stored[step]
            assert found.keys() == cells.keys(), (path.name, step)
            wrong = [k for k, v in cells.items() if comparable(v) != comparable(found[k])]
            assert not wrong, (path.name, step, wrong)
