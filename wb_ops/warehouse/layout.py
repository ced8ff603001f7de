"""The tables and views of a dataset: made, upgraded, and refused where they are not ours."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pyarrow as pa

from wb_ops.errors import WarehouseRefused
from wb_ops.tables.schemas import (
    COLUMNS,
    DOUBLE,
    SCHEMA_VERSION,
    STATE,
    TABLES,
    TEXT,
    check_schema,
)
from wb_ops.warehouse.base import OTHER_DATASET, Owner, staged_key, staged_name, staged_text
from wb_ops.warehouse.placing import Placement, is_text
from wb_ops.warehouse.sql import Session, Staged, quoted

# Where SQL keeps its own things.
_RESERVED = frozenset({"information_schema", "pg_catalog", "system", "temp", "wb_ops"})


@dataclass(slots=True)
class Layout:
    """What a dataset holds: table -> column -> type, and the names of dynamic columns.

    `names` and `rows` (of the tables that were read) are kept once they were asked for.
    """

    session: Session
    dataset: str
    tables: dict[str, dict[str, str]]
    has_changed: bool = False
    names: dict[str, dict[str, str]] | None = None
    rows: dict[str, pa.Table] = field(default_factory=dict, repr=False)

    @classmethod
    def read(cls, session: Session, dataset: str, names: Iterable[str] = TABLES) -> Layout:
        """Read the catalogue; of some tables only where nothing else is looked at."""
        return cls(session, dataset, session.columns_of(dataset, names))

    def check_owner(self, owner: Owner) -> None:
        """Refuse another project's dataset, a newer one, and one whose columns were altered."""
        check_name(self.dataset)
        if "_wb_state" in self.tables:
            check_state(read_table(self, "_wb_state"), self.dataset, owner)
        for table in TABLES.values():
            wanted = {one.name: self.session.sql_type(one.type, one.name) for one in table.schema}
            self._check_types(table.name, wanted)

    def upgrade(self) -> None:
        """Make what is missing: all of a new dataset, what is new here of an older one."""
        if not self.tables:
            self._begin_change()
            self.session.create_schema(self.dataset)
        for table in TABLES.values():
            wanted = {one.name: self.session.sql_type(one.type, one.name) for one in table.schema}
            if table.name not in self.tables:
                columns = ", ".join(f"{quoted(name)} {type_}" for name, type_ in wanted.items())
                self._begin_change()
                self.session.create_table(self.dataset, table.name, columns)
                self.tables[table.name] = wanted
            else:
                self._loosen(table.name, wanted)
                self._add(table.name, wanted)

    def sql(self, table_name: str) -> str:
        """The table's name as SQL."""
        return quoted(self.dataset, table_name)

    def known(self, table_name: str) -> dict[str, str]:
        """Give the dynamic columns of a table: staged column -> name."""
        if self.names is None:
            self.names = self._read_names()
        return self.names.get(table_name, {})

    def _read_names(self) -> dict[str, dict[str, str]]:
        text = self.session.sql_type(TEXT)
        names: dict[str, dict[str, str]] = {}
        registered = read_table(self, "_wb_columns")
        for row in registered.drop_columns(["first_seen"]).to_pylist():
            staged = staged_text if row["type"] == text else staged_name
            of_table = names.setdefault(row["table_name"], {})
            of_table[staged(row["original_key"])] = row["column_name"]
        return names

    def add(self, table_name: str, placement: Placement) -> None:
        """Add a batch's new columns; refuse known ones that somebody altered."""
        wanted = {name: self._type_of(staged) for staged, name in placement.columns.items()}
        self._check_types(table_name, wanted)
        self._add(table_name, wanted)
        if placement.added:
            known = self.known(table_name)
            registered = [
                {
                    "table_name": table_name,
                    "column_name": name,
                    "original_key": staged_key(staged),
                    "type": self._type_of(staged),
                    "first_seen": datetime.now(UTC),
                }
                for staged, name in placement.added.items()
            ]
            insert_rows(self, "_wb_columns", pa.Table.from_pylist(registered, schema=COLUMNS))
            self.names = {**(self.names or {}), table_name: known | placement.added}

    def _type_of(self, staged: str) -> str:
        return self.session.sql_type(TEXT if is_text(staged) else DOUBLE)

    def _add(self, table_name: str, wanted: dict[str, str]) -> None:
        for name in [name for name in wanted if name not in self.tables[table_name]]:
            self._begin_change()
            self.session.execute(
                f"ALTER TABLE {self.sql(table_name)} ADD COLUMN {quoted(name)} {wanted[name]}"
            )
            self.tables[table_name][name] = wanted[name]

    def _loosen(self, table_name: str, wanted: dict[str, str]) -> None:
        """Let columns of an older dataset that were JSON be the text that they are now."""
        for name, there in self.tables[table_name].items():
            if _is_loosened(there, wanted.get(name, there)):
                self._begin_change()
                self.session.execute(
                    f"ALTER TABLE {self.sql(table_name)} "
                    f"ALTER COLUMN {quoted(name)} TYPE {wanted[name]}"
                )
                self.tables[table_name][name] = wanted[name]

    def _begin_change(self) -> None:
        if not self.has_changed:
            self.session.prepare_layout(self.dataset)
            self.has_changed = True

    def _check_types(self, table_name: str, wanted: dict[str, str]) -> None:
        """An INSERT into a column of another type would round or cut without a word."""
        there = self.tables.get(table_name, {})
        for name, type_ in wanted.items():
            if name in there and there[name] != type_ and not _is_loosened(there[name], type_):
                raise WarehouseRefused(
                    f"{table_name}.{name} is {there[name]}, not {type_}, in {self.dataset}: values "
                    "would be changed without a word. Change it back."
                )


def _is_loosened(there: str, type_: str) -> bool:
    """Whether a column of an older dataset gets a type that takes all that it holds."""
    return (there, type_) == ("json", "text")


def insert_rows(
    layout: Layout, table_name: str, rows: pa.Table, replacing: Sequence[str] = ()
) -> int:
    """Insert rows in the table's canonical schema; returns the database's own count of them.

    Rows that hold the same in the columns `replacing` go.
    """
    check_schema(rows, TABLES[table_name].schema)
    if rows.num_rows == 0:
        return 0
    with layout.session.rows_of(rows) as staged:
        if replacing:
            delete_matching(layout, table_name, staged, replacing)
        return insert(layout, table_name, staged.relation, staged.columns)


def delete_matching(layout: Layout, table_name: str, staged: Staged, key: Sequence[str]) -> None:
    """Delete the rows that hold the same as staged ones in the columns `key`."""
    match = " AND ".join(f"old.{quoted(name)} = new.{staged.columns[name]}" for name in key)
    layout.session.execute(
        f"DELETE FROM {layout.sql(table_name)} old USING {staged.relation} new WHERE {match}"
    )


def insert(layout: Layout, table_name: str, relation: str, columns: Mapping[str, str]) -> int:
    """Insert rows; `columns` gives for each column of the table the SQL of its value."""
    names = ", ".join(quoted(name) for name in columns)
    types = layout.tables[table_name]
    values = ", ".join(
        f"CAST({value} AS {types[name]})" if types[name].upper() == "JSON" else value
        for name, value in columns.items()
    )
    return layout.session.execute(
        f"INSERT INTO {layout.sql(table_name)} ({names}) SELECT {values} FROM {relation}"
    )


def read_table(layout: Layout, table_name: str) -> pa.Table:
    """Read a whole table in its canonical schema; columns that an older version lacks are null.

    Asked again, it gives what it was before this transaction wrote.
    """
    if table_name not in layout.rows:
        layout.rows[table_name] = _read_rows(layout, table_name)
    return layout.rows[table_name]


def _read_rows(layout: Layout, table_name: str) -> pa.Table:
    schema = TABLES[table_name].schema
    there = layout.tables.get(table_name)
    if there is None:
        return schema.empty_table()
    columns = ", ".join(
        f"CAST({quoted(one.name) if one.name in there else 'NULL'} AS "
        f"{layout.session.sql_type(one.type)}) AS {quoted(one.name)}"
        for one in schema
    )
    return layout.session.select(f"SELECT {columns} FROM {layout.sql(table_name)}").cast(schema)


def read_tables(layout: Layout, names: Sequence[str]) -> dict[str, pa.Table]:
    """Read whole tables in their canonical schema."""
    return {name: read_table(layout, name) for name in names}


def check_name(dataset: str) -> None:
    """Refuse a dataset with the name of a schema that SQL, or this package, has for itself."""
    if dataset.lower() in _RESERVED or not dataset:
        raise WarehouseRefused(
            f"A dataset cannot be called {dataset!r}, SQL uses that name: {OTHER_DATASET}."
        )


def check_state(state: pa.Table, dataset: str, owner: Owner) -> None:
    """Refuse a dataset of another project, or of a newer version of these schemas."""
    owners = {Owner(row["entity"], row["project"]) for row in state.to_pylist()}
    if others := owners - {owner}:
        raise WarehouseRefused(
            f"The dataset {dataset!r} holds {', '.join(map(str, others))}, not {owner}: "
            f"{OTHER_DATASET}."
        )
    versions = [version for version in state["schema_version"].to_pylist() if version is not None]
    newest = max(versions, default=SCHEMA_VERSION)
    if newest > SCHEMA_VERSION:
        raise WarehouseRefused(
            f"The dataset {dataset!r} was written by a newer wb_ops (schema {newest}, this one "
            f"writes {SCHEMA_VERSION}): upgrade wb_ops."
        )


def record_owner(layout: Layout, owner: Owner) -> None:
    """Say whose dataset this is where no export has said so yet."""
    if not read_table(layout, "_wb_state").num_rows:
        insert_rows(layout, "_wb_state", owner_row(owner))


def owner_row(owner: Owner) -> pa.Table:
    """The row of `_wb_state` that says whose dataset this is, before any export."""
    row = {
        "scope": "",
        "entity": owner.entity,
        "project": owner.project,
        "schema_version": SCHEMA_VERSION,
    }
    return pa.Table.from_pylist([row], schema=STATE)
