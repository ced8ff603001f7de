"""Tables as parquet parts. A part is never changed: rows that go take a rewrite with them."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from wb_ops.tables.schemas import TABLES
from wb_ops.warehouse.lake.changes import CELLS, Change
from wb_ops.warehouse.lake.part_writer import PartWriter
from wb_ops.warehouse.lake.rows import Rows, any_mask
from wb_ops.warehouse.lake.storage import Storage

# A table with this many parts below a quarter of the usual size has them put together.
MAX_SMALL_PARTS = 64

_PART = re.compile(r"/\.?(\d{12})-[0-9a-f]+-\d+\.parquet(\.[0-9a-f]+\.tmp)?$")

Part = Mapping[str, Any]


class ParquetTables:
    """The parts of a dataset. `version` is that of the commit under way: parts carry it."""

    def __init__(self, storage: Storage, folder: str, version: int, load_id: str = "") -> None:
        self._storage = storage
        self._folder = folder
        self._version = version

    def write(self, held: Any, change: Change) -> tuple[dict[str, list[Part]], int]:
        """Write new parts: the rows that stay of those that lose some, and the new rows."""
        parts = _parts(held)
        rewritten = [part for part in parts if change.gone and self._loses(part, change.gone)]
        kept = [part for part in parts if part not in rewritten]
        if len(small := [part for part in kept if part["cells"] < CELLS]) > MAX_SMALL_PARTS:
            rewritten += small
            kept = [part for part in kept if part not in small]
        stem = f"{self._folder}/{change.table_name}/{self._version:012d}-{uuid.uuid4().hex[:8]}"
        with PartWriter(self._storage, stem, change.table_name, change.columns) as writer:
            for part in rewritten:
                for batch in self._batches(part):
                    writer.add(_without(batch, change.gone))
            rows = sum(writer.add(batch) for batch in change.batches())
        return {"parts": [*kept, *writer.parts]}, rows

    def read(self, table_name: str, held: Any, some: Sequence[Rows] = ()) -> pa.Table:
        """Read the fixed columns; parts that cannot hold the rows are not opened."""
        schema = TABLES[table_name].schema
        tables = [schema.empty_table()]
        for part in _parts(held):
            if not some or _may_hold(part, some):
                for batch in self._batches(part, schema.names):
                    rows = batch.filter(any_mask(some, batch)) if some else batch
                    tables.append(pa.Table.from_batches([rows]).cast(schema))
        return pa.concat_tables(tables)

    def uris(self, table_name: str, held: Any) -> list[str]:
        """One file for each part."""
        return [self._storage.uri(f"{self._folder}/{part['path']}") for part in _parts(held)]

    def paths(self, held: Any) -> set[str]:
        """The parts."""
        return {part["path"] for part in _parts(held)}

    def retired(self, before: Any, after: Any) -> set[str]:
        """Parts that were rewritten, or whose rows all went."""
        return self.paths(before) - self.paths(after)

    def litter(self, live: set[str]) -> list[str]:
        """Parts up to this commit's that no manifest names.

        A later number is that of a writer that came after this commit: it is at work.
        """
        paths: list[str] = []
        for path in self._storage.list_files(self._folder):
            found = _PART.search(path)
            is_past = found is not None and int(found[1]) <= self._version
            if is_past and path.removeprefix(f"{self._folder}/") not in live:
                paths.append(path)
        return paths

    def _loses(self, part: Part, gone: Sequence[Rows]) -> bool:
        if not _may_hold(part, gone):
            return False
        columns = sorted({column for rows in gone for column in rows.columns})
        return any(pc.any(any_mask(gone, batch)).as_py() for batch in self._batches(part, columns))

    def _batches(
        self, part: Part, columns: Iterable[str] | None = None
    ) -> Iterator[pa.RecordBatch]:
        with self._storage.open_old(f"{self._folder}/{part['path']}") as source:
            file = pq.ParquetFile(source)
            wanted = None if columns is None else list(columns)
            width = len(file.schema_arrow) if wanted is None else len(wanted)
            yield from file.iter_batches(max(1, CELLS // width), columns=wanted)


def _parts(held: Any) -> list[Part]:
    return list(held["parts"]) if held else []


def _may_hold(part: Part, some: Sequence[Rows]) -> bool:
    """Whether a part can have such rows, by the runs that the manifest lists for it."""
    runs = part["runs"]
    return runs is None or any(
        rows.column != "run_id" or not set(rows.values).isdisjoint(runs) for rows in some
    )


def _without(batch: pa.RecordBatch, gone: Sequence[Rows]) -> pa.RecordBatch:
    return batch.filter(pc.invert(any_mask(gone, batch))) if gone else batch
