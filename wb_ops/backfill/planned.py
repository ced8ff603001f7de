"""One planned value, and how many of them look in a table, a diff, CSV and JSON."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Literal

from wb_ops.backfill.targets import Target

# `put_back` concerns a member of another writer: a write of ours had replaced it.
Action = Literal["set", "put_back", "unchanged", "conflict", "skipped"]
COLUMNS = ("run_id", "target", "key", "action", "reason", "old", "new")
MAX_CELL = 40
# The reason of a member that the journal has as owed.
OWED = "owed to another writer"


@dataclass(frozen=True, slots=True)
class PlannedValue:
    """One key of one run: what is there, what shall be, and what will be done.

    `old` and `new` are JSON texts; `old` is None where the key is not there, `new` where it
    shall not be there (or, of a skipped value, where none was computed). Of a member that is put
    back, `old` is what our write left there, and `new` what its writer had there; of a config, with
    its description.
    """

    run_id: str
    key: str
    old: str | None
    new: str | None
    action: Action
    reason: str = ""
    target: Target = "summary"

    @property
    def is_recorded(self) -> bool:
        """Whether this is a member that the journal has as owed."""
        return self.action == "put_back" and self.reason == OWED

    def __str__(self) -> str:
        return f"{self.run_id}  {self.key}: {self.old or '(none)'} -> {self.new or '(none)'}"


def capped(lines: Sequence[str], limit: int | None) -> list[str]:
    """The first `limit` lines, and how many more there are."""
    if limit is None or len(lines) <= limit:
        return list(lines)
    return [*lines[:limit], f"  ... and {len(lines) - limit:,} more"]


def table_text(values: Iterable[PlannedValue], limit: int | None) -> str:
    """Aligned columns, a line a value; long values are cut."""
    rows = [tuple(_cut(str(getattr(v, name) or "")) for name in COLUMNS) for v in values]
    shown = rows if limit is None else rows[:limit]
    widths = [max(map(len, column)) for column in zip(COLUMNS, *shown, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (COLUMNS, *shown)
    ]
    return "\n".join([*lines, *capped([""] * len(rows), limit)[len(shown) :]])


def diff_text(values: Iterable[PlannedValue], limit: int | None) -> str:
    """The values that will be written, as a diff with a header for each run."""
    lines: list[str] = []
    for run_id, some in groupby(values, key=lambda value: value.run_id):
        lines.append(f"run {run_id}")
        for value in some:
            lines += [f"- {value.key}: {value.old}"] if value.old is not None else []
            lines += [f"+ {value.key}: {value.new}"] if value.new is not None else []
    return "\n".join(capped(lines, limit))


def csv_text(values: Iterable[PlannedValue]) -> str:
    """A header and a line a value; `old` and `new` are JSON texts, empty where there is none."""
    file = io.StringIO()
    writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(value) for value in values)
    return file.getvalue()


def digest(owner: str, values: Iterable[PlannedValue]) -> str:
    """A hash of what is done to which values, the same for equal plans at any time."""
    rows = sorted([[str(getattr(value, name)) for name in COLUMNS] for value in values])
    return hashlib.sha256(json.dumps([owner, rows]).encode()).hexdigest()[:16]


def _cut(text: str) -> str:
    return text if len(text) <= MAX_CELL else text[: MAX_CELL - 1] + "…"
