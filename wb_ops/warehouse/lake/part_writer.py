"""Rows of one table into parquet parts of a good size."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from wb_ops.tables.schemas import TABLES, check_schema
from wb_ops.warehouse.lake.changes import CELLS, table_schema
from wb_ops.warehouse.lake.storage import Storage

# Values in one part: a few hundred MB in memory, some ten on disk.
PART_CELLS = 16 * CELLS


class PartWriter:
    """Collects batches into row groups, and those into parts; `parts` describes what was written.

    Runs of few rows and different metrics share a row group with the columns of all of them, as
    long as it stays small.
    """

    def __init__(
        self, storage: Storage, stem: str, table_name: str, columns: Mapping[str, pa.DataType]
    ) -> None:
        self.parts: list[dict[str, Any]] = []
        self._storage = storage
        self._stem = stem
        self._table_name = table_name
        self._columns = columns
        self._waiting: list[pa.RecordBatch] = []
        self._names: set[str] = set()
        self._rows = 0
        self._part: _OpenPart | None = None

    def __enter__(self) -> PartWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:  # fmt: skip
        if error is None:
            self._flush()
            self._close()
        elif self._part is not None:
            self._part.abandon(kind, error, traceback)

    def add(self, batch: pa.RecordBatch) -> int:
        """Take rows with the fixed columns and some of the dynamic ones; returns how many."""
        if not batch.num_rows:
            return 0
        names = self._names | set(batch.schema.names)
        if self._waiting and (self._rows + batch.num_rows) * len(names) > CELLS:
            self._flush()
            names = set(batch.schema.names)
        self._waiting.append(batch)
        self._names, self._rows = names, self._rows + batch.num_rows
        return int(batch.num_rows)

    def _flush(self) -> None:
        if not self._waiting:
            return
        fixed = TABLES[self._table_name].schema.names
        dynamic = {name: self._columns[name] for name in self._names.difference(fixed)}
        schema = table_schema(self._table_name, dynamic)
        tables = [pa.Table.from_batches([batch]) for batch in self._waiting]
        rows = pa.concat_tables(tables, promote_options="default").select(schema.names)
        check_schema(rows, schema)
        self._waiting, self._names, self._rows = [], set(), 0
        if self._part is not None and not self._part.takes(schema):
            self._close()
        if self._part is None:
            path = f"{self._stem}-{len(self.parts)}.parquet"
            self._part = _OpenPart(self._storage, path, schema)
        self._part.write(rows)

    def _close(self) -> None:
        if self._part is not None:
            self.parts.append(self._part.close())
            self._part = None


class _OpenPart:
    """A part that is being written; its file is there once it is whole."""

    def __init__(self, storage: Storage, path: str, schema: pa.Schema) -> None:
        self._path = path
        self._schema = schema
        self._runs: set[str] = set()
        self._rows = self._cells = 0
        self._stack = ExitStack()
        self._sink = self._stack.enter_context(storage.open_new(path))
        self._writer = self._stack.enter_context(
            pq.ParquetWriter(self._sink, schema, compression="zstd")
        )

    def takes(self, schema: pa.Schema) -> bool:
        return bool(self._schema.equals(schema)) and self._cells < PART_CELLS

    def write(self, rows: pa.Table) -> None:
        self._writer.write_table(rows.cast(self._schema))
        self._rows += rows.num_rows
        self._cells += rows.num_rows * rows.num_columns
        if "run_id" in rows.schema.names:
            self._runs.update(rows["run_id"].unique().to_pylist())

    def close(self) -> dict[str, Any]:
        self._writer.close()
        size_bytes = self._sink.tell()
        self._stack.close()
        return {
            "path": self._path.split("/", 1)[1],
            "rows": self._rows,
            "cells": self._cells,
            "size_bytes": size_bytes,
            "runs": sorted(self._runs) if "run_id" in self._schema.names else None,
        }

    def abandon(
        self, kind: type[BaseException] | None, error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:  # fmt: skip
        self._stack.__exit__(kind, error, traceback)
