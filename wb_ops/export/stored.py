"""Sealed runs as JSON in a plan's folder, with the names of their staged files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

from wb_ops.client.source import Node
from wb_ops.errors import Advice, AdviceKind, Facts
from wb_ops.export.folder import Folder
from wb_ops.export.receipts import Receipt
from wb_ops.export.sealed import Sealed
from wb_ops.export.staged import StagedRows


@dataclass(frozen=True, slots=True)
class StoredRun:
    """A sealed run whose files are in a folder; see `Sealed` for its fields.

    `columns` are those of its history, `advices` say when its failures are worth another try,
    `facts` are those of one of them.
    """

    run_id: str
    node: Node | None
    receipts: tuple[Receipt, ...]
    history: tuple[str, ...] | None
    system: tuple[str, ...] | None
    tail_from: int | None
    keys: tuple[str, ...] | None
    written_by: str | None
    rows: int
    columns: tuple[str, ...]
    advices: tuple[Advice, ...]
    # Not in plans of earlier versions.
    facts: Facts = field(default_factory=Facts)

    def fetched(self, folder: Folder, local: Path, node: Node | None) -> Sealed:
        """The run with its files copied to `local`, as the server describes it now."""
        return Sealed(
            run_id=self.run_id,
            node=node,
            receipts=self.receipts,
            history=_fetch(folder, self.history, local),
            system=_fetch(folder, self.system, local),
            tail_from=self.tail_from,
            keys=self.keys,
            written_by=self.written_by,
            rows=self.rows,
        )


def dump_stored(runs: Sequence[StoredRun]) -> bytes:
    """Runs as JSON."""
    return json.dumps([asdict(run) for run in runs]).encode()


def load_stored(data: bytes) -> list[StoredRun]:
    """Read what `dump_stored` gave."""
    return [_load(values) for values in json.loads(data)]


def _load(values: dict[str, Any]) -> StoredRun:
    lists = ("history", "system", "keys", "columns")
    tuples = {name: None if values[name] is None else tuple(values[name]) for name in lists}
    receipts = tuple(Receipt(**one) for one in values["receipts"])
    advices = tuple(Advice(AdviceKind(one["kind"]), one["seconds"]) for one in values["advices"])
    return StoredRun(**{**values, **tuples, "receipts": receipts, "advices": advices})


def _fetch(
    folder: Folder, names: Sequence[str] | None, local: Path
) -> tuple[StagedRows, ...] | None:
    if names is None:
        return None
    paths = tuple(local / f"{uuid4().hex}.parquet" for _ in names)
    for name, path in zip(names, paths, strict=True):
        folder.get(name, path)
    return tuple(map(StagedRows, paths))
