"""The staged files of a batch: checked, and those of one schema together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from wb_ops.tables.schemas import DOUBLE, TABLES, TEXT
from wb_ops.warehouse.base import staged_key
from wb_ops.warehouse.placing import is_text


@dataclass(frozen=True, slots=True)
class StagedFiles:
    """Parquet files of one schema, and their rows in all."""

    paths: tuple[Path, ...]
    schema: pa.Schema
    rows: int

    @property
    def dynamic(self) -> list[str]:
        """The columns that have no name yet."""
        return [name for name in self.schema.names if staged_key(name) is not None]


def group_files(paths: Sequence[Path], table_name: str) -> list[StagedFiles]:
    """Group files by their schema; only their footers are read.

    Raises:
        ValueError: a file is not what the table takes (a bug in what wrote it).
        pyarrow.ArrowInvalid: it is no parquet file, or is cut.
    """
    groups: dict[pa.Schema, list[Path]] = {}
    rows: Counter[pa.Schema] = Counter()
    for path in paths:
        footer = pq.read_metadata(path)
        schema = footer.schema.to_arrow_schema().remove_metadata()
        groups.setdefault(schema, []).append(path)
        rows[schema] += footer.num_rows
    for schema in groups:
        check_staged(schema, table_name)
    return [StagedFiles(tuple(some), schema, rows[schema]) for schema, some in groups.items()]


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


def count_in_files(groups: Sequence[StagedFiles], columns: Collection[str]) -> Counter[str]:
    """Count the rows that have each column, by the statistics of the files."""
    rows = Counter(dict.fromkeys(columns, 0))
    for group in groups:
        wanted = [index for index, name in enumerate(group.schema.names) if name in rows]
        for path in group.paths if wanted else ():
            _count(pq.read_metadata(path), wanted, rows)
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
