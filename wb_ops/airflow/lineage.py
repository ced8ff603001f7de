"""What an export read and wrote: a schema hash for asset events, datasets for OpenLineage."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from wb_ops.errors import WarehouseError

if TYPE_CHECKING:
    from airflow.providers.common.compat.openlineage.facet import (
        Dataset,
        OutputDataset,
        RunFacet,
    )
    from airflow.providers.openlineage.extractors import OperatorLineage

    from wb_ops.warehouse import Warehouse

    Lineage = OperatorLineage[Dataset, RunFacet]

log = logging.getLogger("wb_ops")

# table -> (column, type): the fixed ones, then the metrics by name
Columns = Mapping[str, Sequence[tuple[str, str]]]


@dataclass(frozen=True, slots=True)
class Exported:
    """One export, as lineage sees it."""

    base_url: str
    entity: str
    project: str
    warehouse: str
    dataset: str
    rows: Mapping[str, int]
    columns: Columns | None

    @property
    def schema_hash(self) -> str | None:
        """A hash that changes when a column is added; None where the columns are not known."""
        if self.columns is None:
            return None
        text = json.dumps({table: list(found) for table, found in sorted(self.columns.items())})
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def read_columns(warehouse: Warehouse, dataset: str, tables: Sequence[str]) -> Columns | None:
    """Return the columns of `runs` and of these tables; None if they cannot be read now.

    The rows are committed already: a warehouse that is busy now is no reason to fail the task.
    """
    from wb_ops.tables.schemas import TABLES

    try:
        added = warehouse.read_tables(dataset, ("_wb_columns",))["_wb_columns"].to_pylist()
    except WarehouseError as error:
        log.warning("the columns of %s are not known: %s", dataset, error)
        return None
    columns = {
        table: [(field.name, str(field.type)) for field in TABLES[table].schema]
        for table in ("runs", *tables)
    }
    # With `runs` comes `runs_flat`; metrics of another export's tables are of no interest here.
    columns["runs_flat"] = []
    for row in sorted(added, key=lambda row: str(row["column_name"])):
        if row["table_name"] in columns:
            columns[row["table_name"]].append((row["column_name"], row["type"]))
    return columns


def openlineage_of(exported: Exported) -> Lineage:
    """Return the export as OpenLineage facets; needs Airflow's OpenLineage provider."""
    from airflow.providers.common.compat.openlineage.facet import Dataset
    from airflow.providers.openlineage.extractors import OperatorLineage

    host = urlsplit(exported.base_url).netloc
    runs = Dataset(namespace=f"wandb://{host}", name=f"{exported.entity}/{exported.project}/runs")
    inputs: list[Dataset] = [runs]
    return OperatorLineage(
        inputs=inputs, outputs=[_output(exported, table) for table in exported.rows]
    )


def _output(exported: Exported, table: str) -> OutputDataset:
    from airflow.providers.common.compat.openlineage.facet import (
        OutputDataset,
        OutputStatisticsOutputDatasetFacet,
        SchemaDatasetFacet,
        SchemaDatasetFacetFields,
    )

    columns = (exported.columns or {}).get(table, ())
    fields = [SchemaDatasetFacetFields(name=name, type=kind) for name, kind in columns]
    counted = OutputStatisticsOutputDatasetFacet(rowCount=exported.rows[table])
    return OutputDataset(
        namespace=exported.warehouse,
        name=f"{exported.dataset}.{table}",
        facets={"schema": SchemaDatasetFacet(fields=fields)} if fields else {},
        outputFacets={"outputStatistics": counted},
    )
