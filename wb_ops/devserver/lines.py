"""History, system events and console output: numbered lines, kept as the text they arrived in."""

from __future__ import annotations

import re
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from wb_ops.devserver.database import Database
from wb_ops.devserver.jsontext import (
    Json,
    JsonSource,
    KeyCollisionError,
    flatten,
    parse,
    parse_object,
    to_text,
)
from wb_ops.devserver.store import Store

# Most lines hold one "_step" before any nested object: those are read without a full parse.
_STEP = re.compile(r'"_step"\s*:\s*(-?\d+)\s*[,}]')
_READ_ROWS = 20_000
_WINDOW = "select text from history where run_pk = ? and step >= ? and step < ? order by step, line"


class Lines:
    """The numbered lines of runs."""

    def __init__(self, database: Database, store: Store) -> None:
        self._database = database
        self._store = store

    def write_history(self, run_pk: int, offset: int, rows: Iterable[JsonSource]) -> None:
        """Write history lines from a line number on; lines already there are replaced.

        A row without ``_step`` gets its line number as one.
        """
        last = [offset - 1]
        with self._database.transaction():
            self._database.write_many(
                "insert or replace into history(run_pk, line, step, text) values(?, ?, ?, ?)",
                _number(run_pk, offset, rows, last),
            )
            run = self._store.load_run(run_pk)
            changes: dict[str, object] = {
                "history_count": max(run["history_count"], last[0] + 1),
                "history_version": run["history_version"] + 1,
            }
            if offset < run["history_count"]:
                changes["history_keys"] = None
            self._store.update_run(run_pk, changes)

    def write_stream(self, run_pk: int, name: str, offset: int, rows: Sequence[JsonSource]) -> None:
        """Write lines of ``events`` or ``log`` from a line number on."""
        texts = [to_text(row) for row in rows]
        with self._database.transaction():
            self._database.write_many(
                "insert or replace into stream(run_pk, name, line, text) values(?, ?, ?, ?)",
                [(run_pk, name, offset + index, text) for index, text in enumerate(texts)],
            )
            column = f"{name}_count"
            count = max(self._store.load_run(run_pk)[column], offset + len(texts))
            changes: dict[str, object] = {column: count}
            if name == "events" and texts:
                changes["system_metrics"] = texts[-1]
            self._store.update_run(run_pk, changes)

    def read_stream(self, run_pk: int, name: str, first_line: int = 0) -> list[tuple[int, str]]:
        """Numbered lines of ``events`` or ``log`` from a line number on."""
        rows = self._database.read(
            "select line, text from stream where run_pk = ? and name = ? and line >= ? "
            "order by line",
            (run_pk, name, first_line),
        )
        return [(row["line"], row["text"]) for row in rows]

    def read_history(
        self, run_pk: int, min_step: int | None = None, max_step: int | None = None
    ) -> list[str]:
        """History lines with ``min_step <= _step < max_step`` in the order of their steps."""
        return self._database.read_texts(_WINDOW, (run_pk, *_bounds(min_step, max_step)))

    def read_history_json(
        self, run_pk: int, min_step: int | None, max_step: int | None
    ) -> tuple[int, str]:
        """How many lines :meth:`read_history` gives, and all of them as a JSON list."""
        return self._database.read_json(_WINDOW, (run_pk, *_bounds(min_step, max_step)))

    def read_history_after(self, run_pk: int, rows: int) -> list[str]:
        """The history lines that follow the first ``rows`` in the order of their steps."""
        return self._database.read_texts(
            "select text from history where run_pk = ? order by step, line limit -1 offset ?",
            (run_pk, rows),
        )

    def iter_history(self, run_pk: int, batch_rows: int = _READ_ROWS) -> Iterator[list[str]]:
        """All history lines in the order of their steps, in batches."""
        step, line = -(2**63), -1
        while True:
            rows = self._database.read(
                "select step, line, text from history where run_pk = ? and step >= ? "
                "and (step > ? or line > ?) order by step, line limit ?",
                (run_pk, step, step, line, batch_rows),
            )
            if not rows:
                return
            step, line = rows[-1]["step"], rows[-1]["line"]
            yield [row["text"] for row in rows]

    def history_tail(self, run_pk: int, lines: int = 1) -> list[str]:
        """The last history lines by line number."""
        return self._tail("history", "", run_pk, lines)

    def events_tail(self, run_pk: int, lines: int = 1) -> list[str]:
        """The last lines of system events."""
        return self._tail("stream", "and name = 'events'", run_pk, lines)

    def _tail(self, table: str, condition: str, run_pk: int, lines: int) -> list[str]:
        rows = self._database.read(
            f"select text from {table} where run_pk = ? {condition} order by line desc limit ?",
            (run_pk, lines),
        )
        return [row["text"] for row in reversed(rows)]

    def history_keys(self, run: sqlite3.Row) -> dict[str, Json] | None:
        """Every metric's count by type, and the last step; None without history."""
        if run["history_count"] == 0:
            return None
        if run["history_keys"] is None or run["keys_version"] != run["history_version"]:
            document = self._count_keys(run)
            self._store.update_run(
                run["pk"],
                {"history_keys": to_text(document), "keys_version": run["history_version"]},
            )
            return document
        return parse_object(run["history_keys"])

    def _count_keys(self, run: sqlite3.Row) -> dict[str, Json]:
        counts: Counter[tuple[str, str]] = Counter()
        last_step = -1
        for texts in self.iter_history(run["pk"]):
            for row in _parse_rows(texts):
                flat = _flat(row)
                counts.update(zip(flat, map(_type_name, flat.values()), strict=True))
            last_step = max(last_step, step_of(texts[-1]) or 0)
        keys: dict[str, Json] = {}
        for (key, kind), count in sorted(counts.items()):
            entry = keys.setdefault(key, {"typeCounts": []})
            if isinstance(entry, dict) and isinstance(entry["typeCounts"], list):
                entry["typeCounts"].append({"type": kind, "count": count})
        return {"lastStep": last_step, "keys": keys, "sets": []}


def step_of(text: str) -> int | None:
    """The ``_step`` of a history line, or None where it has none."""
    found = _STEP.search(text)
    if found and text.count('"_step"') == 1 and text.count("{", 0, found.start()) == 1:
        return int(found[1])
    step = parse_object(text).get("_step")
    return int(step) if isinstance(step, int | float) else None


def _number(
    run_pk: int, offset: int, rows: Iterable[JsonSource], last: list[int]
) -> Iterator[tuple[int, int, int, str]]:
    for line, row in enumerate(rows, offset):
        text = to_text(row)
        step = step_of(text)
        if step is None:
            step, text = line, _with_step(text, line)
        last[0] = line
        yield run_pk, line, step, text


def _with_step(text: str, step: int) -> str:
    body = text.strip()[1:].lstrip()
    return f'{{"_step": {step}{"" if body.startswith("}") else ", "}{body}'


def _bounds(min_step: int | None, max_step: int | None) -> tuple[int, int]:
    return (
        -(2**63) if min_step is None else min_step,
        2**63 - 1 if max_step is None else max_step,
    )


def _parse_rows(texts: Sequence[str]) -> list[dict[str, Json]]:
    rows = parse("[" + ",".join(texts) + "]")
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []


_TYPE_NAMES = {int: "number", float: "number", str: "string", bool: "boolean", list: "list"}


def _type_name(value: Json) -> str:
    if isinstance(value, dict):
        return str(value.get("_type", "object"))
    return _TYPE_NAMES.get(type(value), "null")


def _flat(row: dict[str, Json]) -> dict[str, Json]:
    try:
        return flatten(row)
    except KeyCollisionError:
        return row
