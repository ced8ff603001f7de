"""What the commit of a batch needs of a database that speaks SQL, in one transaction."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import pyarrow as pa

    from wb_ops.warehouse.staged import StagedFiles

# Columns that hold JSON are typed so: people query them with ->> and the like.
JSON_COLUMNS = frozenset({"config", "summary", "_extra", "_floats", "old_value", "new_value"})

# What PostgreSQL keeps of a name: it cuts what is longer.
MAX_NAME_BYTES = 63


def quoted(*names: str) -> str:
    """Quote identifiers and join them with dots."""
    return ".".join('"' + name.replace('"', '""') + '"' for name in names)


def literal(text: str) -> str:
    """Quote a text value."""
    return "'" + text.replace("'", "''") + "'"


def literals(texts: Iterable[str]) -> str:
    """Quote text values for an IN list; of none it is empty, which SQL does not take there."""
    return ", ".join(map(literal, texts))


@dataclass(frozen=True, slots=True)
class Limits:
    """How many dynamic columns a table gets; what is past that goes elsewhere.

    Attributes:
        history: metrics in `history`; more go to `history_long`.
        flat: leaves in `runs_flat`; more stay in `config` and `summary` only.
        flat_texts: how many of those may be text.
    """

    history: int
    flat: int
    flat_texts: int


class Session(Protocol):
    """An open transaction."""

    @property
    def limits(self) -> Limits:
        """How many dynamic columns a table gets."""
        ...

    def sql_type(self, type_: pa.DataType, name: str = "") -> str:
        """The type of a column, in the words in which the catalogue gives it back."""
        ...

    def execute(self, sql: str) -> int:
        """Run one statement; returns how many rows it inserted, deleted or updated."""
        ...

    def select(self, sql: str) -> pa.Table:
        """Run one SELECT."""
        ...

    def columns_of(self, dataset: str, names: Iterable[str]) -> dict[str, dict[str, str]]:
        """Give table -> column -> type, of these tables in a dataset; called before any change."""
        ...

    def prepare_layout(self, dataset: str) -> None:
        """Called before the first change of a dataset's tables or views."""
        ...

    def create_schema(self, dataset: str) -> None:
        """Create a schema that may be there."""
        ...

    def create_table(self, dataset: str, table_name: str, columns: str) -> None:
        """Create a table that is not there; `columns` is SQL."""
        ...

    def shared_schema(self) -> str | None:
        """The schema of the views over all datasets; None where there can be none."""
        ...

    def rows_of(self, rows: pa.Table | pa.RecordBatchReader) -> AbstractContextManager[Staged]:
        """Make Arrow rows selectable; a stream can be selected from once."""
        ...

    def files_of(
        self, files: StagedFiles, columns: Sequence[str]
    ) -> AbstractContextManager[Staged]:
        """Make these columns of parquet files of one schema selectable; memory holds a part."""
        ...

    def unpivoted(self, relation: str, fixed: Sequence[str], keys: Mapping[str, str]) -> str:
        """Give a SELECT of the fixed columns, key and value; a row for each value that is there.

        Args:
            relation: a table or staged relation, as SQL.
            fixed: columns as SQL, each with the name that it keeps.
            keys: DOUBLE column as SQL -> its key.
        """
        ...


@dataclass(frozen=True, slots=True)
class Staged:
    """Rows that SQL can select.

    Attributes:
        relation: what stands behind FROM.
        columns: name in the Arrow data -> column of the relation, as SQL.
    """

    relation: str
    columns: Mapping[str, str]
