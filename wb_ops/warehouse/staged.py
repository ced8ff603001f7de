"""The staged rows of a batch: checked, and those of one schema together."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from wb_ops.tables.schemas import DOUBLE, TABLES, TEXT
from wb_ops.warehouse.base import StagedPart, staged_key
from wb_ops.warehouse.placing import is_text
from wb_ops.warehouse.sql import Session, Staged


@dataclass(frozen=True, slots=True)
class StagedGroup(ABC):
    """Staged rows of one schema."""

    schema: pa.Schema
    rows: int

    @property
    def dynamic(self) -> list[str]:
        """The columns that have no name yet."""
        return [name for name in self.schema.names if staged_key(name) is not None]

    @abstractmethod
    def iter_batches(self, columns: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
        """Read these columns, at most so many rows at a time."""

    @abstractmethod
    def count(self, columns: Collection[str]) -> Counter[str]:
        """Count the rows that have each of these columns."""

    @abstractmethod
    def selectable(
        self, session: Session, columns: Sequence[str]
    ) -> AbstractContextManager[Staged]:
        """Make these columns selectable in a database."""


@dataclass(frozen=True, slots=True)
class StagedFiles(StagedGroup):
    """Staged rows in parquet files."""

    paths: tuple[Path, ...]

    def iter_batches(self, columns: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
        """Read file by file."""
        for path in self.paths:
            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches(rows, columns=list(columns)):
                    yield batch.select(list(columns))

    def count(self, columns: Collection[str]) -> Counter[str]:
        """Go by the statistics of the files."""
        wanted = [index for index, name in enumerate(self.schema.names) if name in columns]
        rows: Counter[str] = Counter()
        for path in self.paths if wanted else ():
            _count(pq.read_metadata(path), wanted, rows)
        return rows

    def selectable(
        self, session: Session, columns: Sequence[str]
    ) -> AbstractContextManager[Staged]:
        """Let the database read the files, where it can."""
        return session.files_of(self, columns)


@dataclass(frozen=True, slots=True)
class StagedTable(StagedGroup):
    """Staged rows in memory."""

    table: pa.Table

    def iter_batches(self, columns: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
        """Cut what is there; nothing is copied."""
        yield from self.table.select(list(columns)).to_batches(rows)

    def count(self, columns: Collection[str]) -> Counter[str]:
        """Count what is there."""
        return count_in_rows(self.table, [name for name in self.dynamic if name in columns])

    def selectable(
        self, session: Session, columns: Sequence[str]
    ) -> AbstractContextManager[Staged]:
        """Let the database read what is in memory, where it can."""
        return session.rows_of(self.table.select(list(columns)))


def group_staged(parts: Sequence[StagedPart], table_name: str) -> list[StagedGroup]:
    """Group parquet files and tables by their schema; of files only the footers are read.

    Raises:
        ValueError: a part is not what the table takes (a bug in what made it).
        pyarrow.ArrowInvalid: it is no parquet file, or is cut.
    """
    paths = [part for part in parts if isinstance(part, Path)]
    tables = [part for part in parts if not isinstance(part, Path)]
    groups = [*_group_files(paths), *_group_tables(tables)]
    for group in groups:
        check_staged(group.schema, table_name)
    return groups


def _group_files(paths: Sequence[Path]) -> Iterator[StagedGroup]:
    groups: dict[pa.Schema, list[Path]] = {}
    rows: Counter[pa.Schema] = Counter()
    for path in paths:
        footer = pq.read_metadata(path)
        schema = footer.schema.to_arrow_schema().remove_metadata()
        groups.setdefault(schema, []).append(path)
        rows[schema] += footer.num_rows
    for schema, some in groups.items():
        yield StagedFiles(schema, rows[schema], tuple(some))


def _group_tables(tables: Sequence[pa.Table]) -> Iterator[StagedGroup]:
    groups: dict[pa.Schema, list[pa.Table]] = {}
    for table in tables:
        groups.setdefault(table.schema.remove_metadata(), []).append(table)
    for schema, some in groups.items():
        table = pa.concat_tables(some)
        yield StagedTable(schema, table.num_rows, table)


def check_staged(schema: pa.Schema, table_name: str) -> None:
    """Check fixed columns against their schema and dynamic ones against their kind.

    Raises:
        ValueError: they differ. This is a bug in what made the batch, not a user's error.
    """
    expected = TABLES[table_name].schema
    fixed = [field for field in schema if staged_key(field.name) is None]
    if [field.name for field in fixed] != expected.names:
        raise ValueError(
            f"{table_name}: columns are {[field.name for field in fixed]}, "
            f"expected {expected.names}"
        )
    dynamic = [field for field in schema if staged_key(field.name) is not None]
    types = {field.name: field.type for field in expected} | {
        field.name: TEXT if is_text(field.name) else DOUBLE for field in dynamic
    }
    for field in schema:
        if field.type != types[field.name]:
            raise ValueError(
                f"{table_name}.{field.name}: got {field.type}, expected {types[field.name]}"
            )
    if loose := [
        one.name for one in expected if not one.nullable and schema.field(one.name).nullable
    ]:
        raise ValueError(f"{table_name}: columns {loose} may hold nulls, expected none")


def count_staged(groups: Sequence[StagedGroup], columns: Collection[str]) -> Counter[str]:
    """Count the rows that have each column."""
    rows = Counter(dict.fromkeys(columns, 0))
    for group in groups:
        rows.update(group.count(rows.keys()))
    return rows


def _count(metadata: pq.FileMetaData, wanted: Sequence[int], rows: Counter[str]) -> None:
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        for index in wanted:
            chunk = group.column(index)
            statistics = chunk.statistics
            nulls = statistics.null_count if statistics is not None else 0
            rows[chunk.path_in_schema] += group.num_rows - (nulls or 0)


def count_in_rows(rows: pa.Table, columns: Collection[str]) -> Counter[str]:
    """Count the rows that have each column."""
    return Counter({name: rows.num_rows - rows[name].null_count for name in columns})
