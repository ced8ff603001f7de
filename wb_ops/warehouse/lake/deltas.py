"""Tables as Delta tables. A manifest names their versions: those above are not committed yet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import TableNotFoundError
from deltalake.schema import Field, PrimitiveType

from wb_ops.errors import WarehouseRefused
from wb_ops.tables.schemas import DOUBLE, TABLES, TEXT, check_schema
from wb_ops.warehouse.lake.changes import CELLS, Change, table_schema
from wb_ops.warehouse.lake.rows import Rows, any_expression
from wb_ops.warehouse.lake.storage import Storage

# The Delta transaction id under which a table records the commits of its dataset.
APP_ID = "wb_ops"

_DELTA_TYPES = {DOUBLE: "double", TEXT: "string"}


class DeltaTables:
    """The Delta tables of a dataset. `version` is that of the commit under way."""

    def __init__(self, storage: Storage, folder: str, version: int, load_id: str = "") -> None:
        self._storage = storage
        self._folder = folder
        self._version = version
        self._load_id = load_id

    def write(self, held: Any, change: Change) -> tuple[dict[str, int], int]:
        """Replace rows in one Delta commit, on top of the version that the manifest names."""
        table = self._at_head(change.table_name, held)
        self._add_columns(table, change)
        schema = _schema_of(table, change)
        predicate = " OR ".join(rows.sql() for rows in change.gone)
        rows = Counted(_padded(change, schema))
        if not change.has_rows:
            table.delete(predicate, commit_properties=self._properties())
        else:
            reader = pa.RecordBatchReader.from_batches(schema, rows)
            options: dict[str, Any] = (
                {"mode": "overwrite", "predicate": predicate} if predicate else {"mode": "append"}
            )
            write_deltalake(table, reader, commit_properties=self._properties(), **options)
        return {"version": table.version()}, rows.count

    def read(self, table_name: str, held: Any, some: Sequence[Rows] = ()) -> pa.Table:
        """Read the fixed columns of the version that the manifest names."""
        schema = TABLES[table_name].schema
        if held is None:
            return schema.empty_table()
        table = self._at(table_name, held)
        # Delta names its newest files first; a journal is read in the order of its appends.
        added = pa.table(table.get_add_actions(flatten=True)).to_pylist()
        age = {one["path"]: one["modification_time"] for one in added}
        files = sorted(
            table.to_pyarrow_dataset().get_fragments(),
            key=lambda one: age[one.path.rsplit("/", 1)[-1]],
        )
        keep = any_expression(some)
        rows = [one.to_table(columns=schema.names, filter=keep).cast(schema) for one in files]
        return pa.concat_tables([schema.empty_table(), *rows])

    def uris(self, table_name: str, held: Any) -> list[str]:
        """The data files of that version."""
        return list(self._at(table_name, held).file_uris()) if held else []

    def paths(self, held: Any) -> set[str]:
        """Nothing: Delta's own log says which files are whose."""
        return set()

    def retired(self, before: Any, after: Any) -> set[str]:
        """Nothing: Delta keeps old files for its own time travel, until a VACUUM."""
        return set()

    def litter(self, live: set[str]) -> list[str]:
        """Nothing: what a killed commit left is undone by the next write to its table."""
        return []

    def _uri(self, table_name: str) -> str:
        return self._storage.uri(f"{self._folder}/{table_name}")

    def _at(self, table_name: str, held: Any) -> DeltaTable:
        return DeltaTable(self._uri(table_name), version=held["version"])

    def _at_head(self, table_name: str, held: Any) -> DeltaTable:
        """Open a table; undo what a commit wrote that was killed before its manifest."""
        committed = held["version"] if held else 0
        try:
            table = DeltaTable(self._uri(table_name))
        except TableNotFoundError:
            # Version 0 has no rows, so that there is something to go back to.
            return DeltaTable.create(
                self._uri(table_name),
                schema=TABLES[table_name].schema,
                commit_properties=self._properties(),
            )
        if table.version() != committed:
            table.restore(committed, commit_properties=self._properties())
        return table

    def _add_columns(self, table: DeltaTable, change: Change) -> None:
        there = {field.name for field in table.schema().fields}
        fields = [
            Field(name, PrimitiveType(_DELTA_TYPES[type_]))
            for name, type_ in sorted(change.columns.items())
            if name not in there
        ]
        if fields:
            table.alter.add_columns(fields, commit_properties=self._properties())

    def _properties(self) -> CommitProperties:
        """Say whose commit it is; fail where another writer came first, never build on its rows."""
        return CommitProperties(
            custom_metadata={"wb_ops.load_id": self._load_id, "wb_ops.version": str(self._version)},
            app_transactions=[Transaction(APP_ID, self._version)],
            max_commit_retries=0,
        )


class Counted:
    """Counts the rows of the batches that go through it."""

    def __init__(self, batches: Iterator[pa.RecordBatch]) -> None:
        self._batches = batches
        self.count = 0

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        for batch in self._batches:
            self.count += batch.num_rows
            yield batch


def _schema_of(table: DeltaTable, change: Change) -> pa.Schema:
    """The table's own schema, after a check that each column has the type that we give it."""
    wanted = {field.name: field for field in table_schema(change.table_name, change.columns)}
    there = pa.schema(table.schema().to_arrow()).remove_metadata()
    for field in there:
        ours = wanted.get(field.name)
        if ours is None or ours.type != field.type:
            raise WarehouseRefused(
                f"{change.table_name}.{field.name} is {field.type}, not "
                f"{ours.type if ours else 'a column of ours'}: values would be changed without a "
                "word. Change it back."
            )
    return there


def _padded(change: Change, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Give every batch all columns; those that are wide by it are cut to fit the memory."""
    rows = max(1, CELLS // len(schema))
    for batch in change.batches():
        own = table_schema(
            change.table_name,
            {
                name: change.columns[name]
                for name in batch.schema.names
                if name in change.columns
            },
        )  # fmt: skip
        check_schema(batch.select(own.names), own)
        for start in range(0, batch.num_rows, rows):
            yield _with_columns(batch.slice(start, rows), schema)


def _with_columns(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    there = set(batch.schema.names)
    columns = [
        batch[field.name] if field.name in there else pa.nulls(batch.num_rows, field.type)
        for field in schema
    ]
    return pa.record_batch(columns, schema=schema)
