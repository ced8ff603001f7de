"""What a table looks like in the warehouse, in Dagster's words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg

from wb_ops.dagster.metadata import Metadata

if TYPE_CHECKING:
    from wb_ops.warehouse import Warehouse


def table_metadata(
    warehouse: Warehouse, dataset: str, table: str, columns: dg.TableSchema
) -> Metadata:
    """Describe a table as it is now: where, how many rows, which columns.

    Raises:
        WarehouseError: it cannot be read.
    """
    counted = warehouse.query(f"select count(*) as row_count from {table}", dataset)
    return {
        "dagster/table_name": f"{dataset}.{table}",
        "dagster/uri": warehouse.url,
        "dagster/row_count": counted["row_count"][0].as_py(),
        "dagster/column_schema": dg.MetadataValue.table_schema(columns),
    }


def read_added_columns(warehouse: Warehouse, dataset: str) -> list[dict[str, Any]]:
    """Return the rows of `_wb_columns`: the columns that were added for logged keys.

    Raises:
        WarehouseError: they cannot be read.
    """
    added: list[dict[str, Any]] = warehouse.read_tables(dataset, ["_wb_columns"])[
        "_wb_columns"
    ].to_pylist()
    return added


def column_schema(added: Sequence[Mapping[str, Any]], table: str) -> dg.TableSchema:
    """Return the fixed columns with their meaning, and the metrics with their names as logged."""
    metrics = _metrics(added, table)
    return dg.TableSchema(columns=[*_fixed_columns(table), *metrics])


def _fixed_columns(table: str) -> list[dg.TableColumn]:
    from wb_ops.tables.schemas import TABLES

    schema = TABLES[table]
    is_alone = len(schema.key) == 1
    return [
        dg.TableColumn(
            name=field.name,
            type=str(field.type),
            description=_meaning(field.metadata or {}),
            constraints=dg.TableColumnConstraints(
                nullable=field.nullable, unique=is_alone and field.name in schema.key
            ),
        )
        for field in schema.schema
    ]


def _meaning(metadata: dict[bytes, bytes]) -> str:
    unit = metadata.get(b"unit", b"").decode()
    return metadata.get(b"meaning", b"").decode() + (f" [{unit}]" if unit else "")


def _metrics(added: Sequence[Mapping[str, Any]], table: str) -> list[dg.TableColumn]:
    """The columns that the logged keys were given; the description is the key as logged."""
    return [
        dg.TableColumn(name=row["column_name"], type=row["type"], description=row["original_key"])
        for row in sorted(added, key=lambda row: str(row["column_name"]))
        if row["table_name"] == table
    ]
