"""Live rows of one history, as the server's JSON: in memory while few, else on disk."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import IO

import orjson
import pyarrow as pa

from wb_ops.client.downloads import disk_errors, temporary_file, write_all
from wb_ops.tables.live import KeyForms, live_parts, live_table
from wb_ops.tables.live_forms import LiveForms
from wb_ops.tables.plain_rows import read_plain

# Above this size the rows go to an unlinked file.
MAX_HELD_BYTES = 16 * 1024**2
# Up to this size of the rows the tables that were made of them are kept too.
MAX_PARSED_BYTES = 32 * 1024**2


@dataclass(slots=True)
class LiveRows:
    """Chunks of rows (JSON texts), each a window of steps, in the order they were added."""

    size_bytes: int = 0
    _held: dict[int, Sequence[str]] = field(default_factory=dict)
    _places: dict[int, tuple[int, int]] = field(default_factory=dict)
    _parsed: dict[int, pa.Table | None] = field(default_factory=dict)
    _file: IO[bytes] | None = None
    _count: int = 0
    _forms: LiveForms = field(default_factory=LiveForms)
    _unseen: list[int] = field(default_factory=list)
    _decided: KeyForms | None = None

    def add(self, rows: Sequence[str], table: pa.Table | None) -> int:
        """Keep a chunk, with what `read_plain` made of it, and return its number.

        Raises:
            WarehouseRefused: the disk is full (retry: never).
        """
        number = self._count
        self._count += 1
        self.size_bytes += sum(map(len, rows))
        self._held[number] = rows
        self._decided = None
        if self.size_bytes <= MAX_PARSED_BYTES:
            self._parsed[number] = table
        if table is None:
            # To look at these rows takes time, and is needed for long histories only.
            self._unseen.append(number)
        else:
            self._forms.add_plain(table)
        if self._file is not None or self.size_bytes > MAX_HELD_BYTES:
            self._spill()
        return number

    def read(self, number: int) -> Sequence[str]:
        """Return the rows of a chunk."""
        if number in self._held:
            return self._held[number]
        assert self._file is not None  # noqa: S101 - what is not held was spilled
        start, size = self._places[number]
        self._file.seek(start)
        return _rows(self._file.read(size))

    def tables(self, numbers: Sequence[int]) -> list[pa.Table]:
        """Return some chunks as tables of live rows, in this order, in the forms of all chunks.

        Raises:
            ValueError: a row is no JSON object.
        """
        forms = self._all_forms() if len(numbers) < self._count else None
        plain = self._plain(numbers)
        parts = live_parts(plain, forms) if plain else None
        return parts or [live_table(list(chain.from_iterable(map(self.read, numbers))), forms)]

    def close(self) -> None:
        """Forget the rows."""
        self._held.clear()
        self._parsed.clear()
        if self._file is not None:
            self._file.close()

    def _all_forms(self) -> KeyForms:
        """How keys are read whose form depends on the rows of all chunks."""
        while self._unseen:
            self._forms.add(self.read(self._unseen[-1]))
            self._unseen.pop()
        if self._decided is None:
            self._decided = self._forms.decided()
        return self._decided

    def _plain(self, numbers: Sequence[int]) -> list[pa.Table] | None:
        """The chunks as plain tables, None as soon as one is not plain."""
        tables = []
        for number in numbers:
            if number in self._parsed:
                table = self._parsed[number]
            else:
                table = read_plain(self.read(number))
            if table is None:
                return None
            tables.append(table)
        return tables

    def _spill(self) -> None:
        with disk_errors():
            if self._file is None:
                self._file = temporary_file()
            for number, rows in self._held.items():
                # One JSON document a chunk: rows may hold any character, newlines too.
                text = _document(rows)
                self._places[number] = (self._file.seek(0, 2), len(text))
                write_all(self._file.write, text)
        self._held.clear()


def _document(rows: Sequence[str]) -> bytes:
    try:
        return orjson.dumps(rows)
    except orjson.JSONEncodeError:  # lone surrogates
        return json.dumps(rows).encode()


def _rows(document: bytes) -> list[str]:
    try:
        rows: list[str] = orjson.loads(document)
    except orjson.JSONDecodeError:  # lone surrogates
        rows = json.loads(document)
    return rows
