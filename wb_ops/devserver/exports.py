"""Which part of a run's history is exported, and where its files are."""

from __future__ import annotations

import random
import sqlite3
import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

from wb_ops.devserver.arrow_types import UnrepresentableError
from wb_ops.devserver.lines import Lines
from wb_ops.devserver.parquet import write_parts

_BATCH_ROWS = 10_000
_ENDED = frozenset({"finished", "failed", "crashed", "killed"})


@dataclass(frozen=True, slots=True)
class Export:
    """The exported files and how many leading rows they hold; the rows after those are live."""

    files: Sequence[Path]
    rows: int
    is_partial: bool


NOTHING = Export((), 0, is_partial=False)


class Exports:
    """Generates exports at first use and keeps them while the history is unchanged."""

    def __init__(self, lines: Lines, rows_per_file: int, is_shuffled: bool) -> None:
        self._lines = lines
        self._rows_per_file = rows_per_file
        self._is_shuffled = is_shuffled
        self._folder = TemporaryDirectory(prefix="wb-ops-exports-")
        self._known: dict[str, Export] = {}
        self._locks: defaultdict[int, threading.Lock] = defaultdict(threading.Lock)

    @property
    def folder(self) -> Path:
        """The folder that holds every export."""
        return Path(self._folder.name)

    def export(self, run: sqlite3.Row) -> Export:
        """The export of a run as it stands: all rows of an ended one, by default.

        The run's ``parquet`` column changes that: ``off``, or a number of leading rows.
        """
        wanted_rows = _wanted_rows(run)
        if wanted_rows <= 0:
            return NOTHING
        key = f"{run['pk']}/{run['history_version']}-{wanted_rows}"
        with self._locks[run["pk"]]:
            if key not in self._known:
                self._known[key] = self._generate(run, key, wanted_rows)
        return self._known[key]

    def segments(self, export: Export) -> list[tuple[str, ...]]:
        """The path segments of each file below the storage origin; shuffled where asked for."""
        names = [("exports", *path.relative_to(self.folder).parts) for path in export.files]
        if self._is_shuffled:
            random.shuffle(names)
        return names

    def close(self) -> None:
        """Remove every file."""
        self._folder.cleanup()

    def _generate(self, run: sqlite3.Row, key: str, wanted_rows: int) -> Export:
        batches = _first_rows(self._lines.iter_history(run["pk"], _BATCH_ROWS), wanted_rows)
        try:
            files = write_parts(batches, self.folder / key, self._rows_per_file)
        except UnrepresentableError:
            return NOTHING
        return Export(files, wanted_rows, is_partial=wanted_rows < run["history_count"])


def _wanted_rows(run: sqlite3.Row) -> int:
    count = int(run["history_count"])
    if run["parquet"] == "off":
        return 0
    if run["parquet"] == "auto":
        return count if run["state"] in _ENDED else 0
    return min(int(run["parquet"]), count)


def _first_rows(batches: Iterator[list[str]], count: int) -> Iterator[list[str]]:
    for batch in batches:
        yield list(islice(batch, count))
        count -= len(batch)
        if count <= 0:
            return
