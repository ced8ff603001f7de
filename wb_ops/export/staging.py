"""One run's rows in the canonical schemas, on disk or in memory, before the warehouse is opened."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, TypeVar
from uuid import uuid4

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow.fs import LocalFileSystem

from wb_ops.client.history import HistoryReader, RawHistory, Selection, joined
from wb_ops.client.sampled import sampled_history
from wb_ops.client.source import RunSource
from wb_ops.client.sources import HistorySources
from wb_ops.errors import (
    AuthenticationFailed,
    CommError,
    ConnectionFailed,
    MalformedResponse,
    RateLimited,
    WarehouseRefused,
)
from wb_ops.export.decide import PlannedRun
from wb_ops.export.staged import Room, StagedHistory, StagedRows, StagedRun, StagedSystem
from wb_ops.tables.history import MergedHistory, history_batch, history_columns, merge_parts
from wb_ops.tables.schemas import check_schema, history_schema
from wb_ops.tables.secrets import TOKEN_PATTERN, redacted
from wb_ops.tables.system_metrics import system_metrics_table
from wb_ops.tables.values import decode_document, encode_document, pointers_text
from wb_ops.warehouse.base import staged_name

log = logging.getLogger("wb_ops")

# A run that cannot be read goes into its receipt; these are not about one run.
STOPS_ALL = (AuthenticationFailed, RateLimited, ConnectionFailed)

T = TypeVar("T")

# W&B serves the system stream sampled; this many rows at most.
SYSTEM_SAMPLES = 10_000

# Named, it need not be found out for each file.
_LOCAL = LocalFileSystem()


@dataclass(frozen=True, slots=True)
class Stager:
    """Reads runs of one project; their rows stay in memory, or below a local folder.

    To write and read files costs a fifth of an export. `room`: what fits is not written.
    """

    source: RunSource
    reader: HistoryReader
    folder: Path
    load_id: str
    redacts: bool
    # Files that do not travel go with their batch: packing them costs more than it saves.
    compression: Literal["none", "lz4"] = "none"
    room: Room = field(default_factory=lambda: Room(0))

    def stage(self, planned: PlannedRun, sources: HistorySources | None) -> StagedRun:
        """Read what the plan says of one run; memory holds one group of it, and what fits `room`.

        Raises:
            CommError: of STOPS_ALL; others are in what is returned.
            WarehouseRefused: the folder is full or cannot be written (retry: never).
        """
        history, error = _attempt(
            planned, lambda: self._history(planned, sources) if planned.reads_history else None
        )
        system, system_error = _attempt(
            planned, lambda: self._system(planned) if planned.reads_system else None
        )
        return StagedRun(planned, history, system, error, system_error)

    def _history(self, planned: PlannedRun, sources: HistorySources | None) -> StagedHistory:
        if planned.tail_from is not None:
            tail = self._read(planned, Selection(planned.keys, planned.tail_from), sources)
            if tail.counts.first_step == planned.tail_from:
                return replace(tail, tail_from=planned.tail_from)
            # The last step that is held is gone: this is not the history that was read before.
            log.info("run %s: its end does not fit what is held; reading all", planned.run_id)
            _discard(tail.parts)
            sources = None
        return self._read(planned, Selection(planned.keys), sources)

    def _read(
        self, planned: PlannedRun, selection: Selection, sources: HistorySources | None
    ) -> StagedHistory:
        counts = merge_parts([])
        parts: list[StagedRows] = []
        columns: set[str] = set()
        rows = 0
        with self.reader.read(self.source, planned.run_id, selection, sources) as raw:
            may_stay = self.room.suits(sum(piece.cells for piece in raw.pieces))
            try:
                for merged in raw.iter_merged():
                    counts = joined(counts, merged)
                    batch = self._batch(planned.run_id, raw, merged)
                    if batch.num_rows:
                        parts.append(self._keep(batch, may_stay=may_stay))
                        rows += batch.num_rows
                        columns.update(batch.column_names)
            except BaseException:
                _discard(parts)
                raise
        return StagedHistory(
            counts=counts,
            parts=tuple(parts),
            rows=rows,
            columns=frozenset(columns),
            source=raw.source,
            has_overlap=raw.has_overlap,
            size_bytes=raw.size_bytes,
            line_count=raw.line_count,
        )

    def _keep(self, table: pa.Table, *, may_stay: bool = True) -> StagedRows:
        if may_stay and self.room.take(table):
            return StagedRows(table, self.room)
        return StagedRows(self._write(table))

    def _batch(self, run_id: str, raw: RawHistory, merged: MergedHistory) -> pa.Table:
        table = raw.select(merged.table, own_columns=True)
        numeric, _ = history_columns(table)
        names = {key: staged_name(key) for key in numeric}
        batch = history_batch(run_id, table, names, self.load_id)
        check_schema(batch, history_schema(list(names.values())))
        return without_secrets(batch) if self.redacts else batch

    def _system(self, planned: PlannedRun) -> StagedSystem:
        run_id = planned.run_id
        rows = sampled_history(self.source, run_id, SYSTEM_SAMPLES, None, "_step", "system")
        table = system_metrics_table(run_id, rows, sampled=True, load_id=self.load_id)
        parts = (self._keep(table),) if table.num_rows else ()
        return StagedSystem(parts, table.num_rows)

    def _write(self, table: pa.Table) -> Path:
        # Not named after the run: an id may be longer than a file's name.
        path = self.folder / f"{uuid4().hex}.parquet"
        # Numbers seldom repeat: a dictionary of them costs three times the write, and is dropped.
        texts = [field.name for field in table.schema if field.type == pa.string()]
        try:
            pq.write_table(
                table,
                path,
                compression=self.compression,
                use_dictionary=texts,
                filesystem=_LOCAL,
            )
        except OSError as exc:
            raise WarehouseRefused(
                f"Rows cannot be staged in {self.folder.parent}: {exc}. Make room there, or set "
                "TMPDIR to a folder on a larger disk.",
                exc,
            ) from exc
        return path


def _discard(parts: Iterable[StagedRows]) -> None:
    for part in parts:
        part.discard()


def _attempt(
    planned: PlannedRun, read: Callable[[], T | None]
) -> tuple[T | None, CommError | None]:
    """What was read, or the error that is about this run alone."""
    try:
        return read(), None
    except STOPS_ALL:
        raise
    except CommError as error:
        log.warning("run %s: %s", planned.run_id, error)
        return None, error
    except ValueError as exc:
        # Rows that no rule of ours foresaw: this run's trouble, not everybody's.
        log.warning("run %s: %s", planned.run_id, exc)
        return None, MalformedResponse(f"Unreadable rows: {exc}", exc)


_RISKY = re.compile(r"(?i)key|secret|passw|token|credential|auth")


def without_secrets(batch: pa.Table) -> pa.Table:
    """Take what looks like a secret out of `_extra`; only rows that need it are visited."""
    pattern = f"{TOKEN_PATTERN}|{_RISKY.pattern}"
    mask = pc.match_substring_regex(batch["_extra"], pattern)
    if not pc.any(mask).as_py():
        return batch
    texts, floats = batch["_extra"].to_pylist(), batch["_floats"].to_pylist()
    for row in pc.indices_nonzero(mask).to_pylist():
        pointers = json.loads(floats[row]) if floats[row] else []
        document = redacted(decode_document(texts[row], pointers, "/_extra"))
        encoded = encode_document(document, "/_extra")
        texts[row], floats[row] = encoded.text, pointers_text(encoded.floats)
    for name, cells in (("_extra", texts), ("_floats", floats)):
        index = batch.schema.get_field_index(name)
        batch = batch.set_column(index, batch.schema.field(index), pa.array(cells, pa.string()))
    return batch
