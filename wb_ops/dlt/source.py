"""The source and its resources, with the only settings of dlt that keep values exact."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import dlt
import pyarrow as pa
from dlt.extract import DltResource, DltSource

from wb_ops.client.api import Api
from wb_ops.dlt.pipelines import SCHEMA_NAME, STRATEGY
from wb_ops.dlt.proof import BY_RUN, ROW_COUNTS
from wb_ops.dlt.staged_export import StagedExport
from wb_ops.export.request import DEFAULT_TABLES, ExportRequest, Mode, OnIncomplete
from wb_ops.tables.schemas import TABLES

# The names are ours already; dlt's own rule would put Loss and loss, a/b and a_b into one column.
_NORMALIZERS: Any = {
    "names": "direct",
    "json": {"module": "dlt.common.normalizers.json.relational"},
}

# Written last, so that a load that was cut shows fewer receipts than rows.
_BY_KEY = ("_wb_receipts", "_wb_loads", "_wb_state")
# Not staged, so that no other load can take a row away.
_APPENDED = ("_wb_columns", ROW_COUNTS.name)
_TABLES = {**TABLES, ROW_COUNTS.name: ROW_COUNTS}
_MERGE = {"disposition": "merge", "strategy": STRATEGY}

_DATA_TYPES = {
    pa.string(): "text",
    pa.int64(): "bigint",
    pa.float64(): "double",
    pa.bool_(): "bool",
    pa.timestamp("us", tz="UTC"): "timestamp",
    pa.list_(pa.string()): "text",
}


def wandb_source(
    entity: str,
    project: str,
    *,
    api: Api | None = None,
    tables: Sequence[str] = DEFAULT_TABLES,
    filters: Mapping[str, Any] | None = None,
    keys: Sequence[str] | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    mode: Mode = "incremental",
    on_incomplete: OnIncomplete = "mark",
    max_workers: int = 8,
    states: Sequence[str] | None = None,
    redact_secrets: bool = False,
) -> DltSource:
    """Give a W&B project as a dlt source; nothing is read before a pipeline extracts it.

    >>> pipeline = dlt.pipeline("wandb", destination="snowflake", dataset_name="wandb")
    >>> pipeline.run(wandb_source("my-team", "my-project"))

    Only runs that changed since the last finished load are read, and each is replaced whole. What
    was loaded is read back from the destination: a load that was cut, or a lost working folder,
    costs a second read of its runs and nothing else. The settings of the resources are the ones
    that keep values exact: do not apply hints to them, and load with the file format they ask for.
    Resources may be left out, but not mapped, filtered or limited: receipts say what was read of
    W&B, and would not be true of other rows.

    Give each source a `pipeline.run` of its own, and run one load at a time for a dataset: dlt has
    no lock, and two at once lose or double rows. That is counted at the end of a load and before
    the next one, which reads what is hurt again (docs/lake.md).

    The tables are those of docs/warehouses.md; tags are JSON text. Where dlt cannot merge (files
    without a table format) it appends: the rows of the newest receipt of a run are the live ones.

    Args:
        entity, project: the W&B project.
        api: the W&B server; by default as the environment says.
        tables, filters, keys, since, until, mode, on_incomplete, max_workers, states,
            redact_secrets: as in `wb_ops.export.ExportRequest`.

    Raises:
        InvalidRequest: an argument is wrong; or, while a pipeline extracts: it is the second source
            of one `pipeline.run`, or a resource is mapped (retry: never). While a pipeline
            extracts, dlt wraps what is raised; `wb_ops.errors.find_error` finds the error of ours
            with its advice.
        WarehouseRefused: while a pipeline extracts: the dataset is another project's, of a newer
            version, or has a column of two metrics (retry: never).
        WarehouseBusy: by the pipeline's `load`, after it: rows are hurt, mostly by another load at
            the same time (retry: after the wait it carries; the next load heals).
        CommError, ExportIncomplete: by the pipeline's `load`, after it has loaded what could be
            read (`on_incomplete="fail"`, a limit that is spent, a lost connection).
    """
    request = ExportRequest(
        entity=entity, project=project, filters=filters or {}, tables=tuple(tables),
        keys=None if keys is None else tuple(keys), since=since, until=until, mode=mode,
        on_incomplete=on_incomplete, max_workers=max_workers,
        states=None if states is None else tuple(states), redact_secrets=redact_secrets,
    )  # fmt: skip
    export = StagedExport(request, api)

    resources = [_resource(export, name) for name in (*BY_RUN, *_APPENDED, *_BY_KEY)]
    source = DltSource(dlt.Schema(SCHEMA_NAME, _NORMALIZERS), SCHEMA_NAME, resources)
    source.max_table_nesting = 0
    source.schema_contract = {"data_type": "freeze"}
    return source


def _resource(export: StagedExport, table_name: str) -> DltResource:
    table = _TABLES[table_name]
    hints: dict[str, Any] = {"write_disposition": _MERGE}
    if table_name in BY_RUN:
        # Never with a primary key beside the merge key: dlt would delete by an OR of both, which
        # joins without an index.
        hints["merge_key"] = "run_id"
    elif table_name in _BY_KEY:
        hints["primary_key"] = table.key
    else:
        hints["write_disposition"] = "append"
    hints["columns"] = {
        field.name: {"data_type": _DATA_TYPES[field.type], "nullable": field.nullable}
        for field in table.schema
    }

    def rows() -> Iterator[pa.Table]:
        for batch in export.batches(table_name):
            yield _loadable(batch)

    resource: DltResource = dlt.resource(
        rows,
        name=table_name,
        file_format="parquet",
        **hints,
    )
    return resource


def _loadable(rows: pa.Table) -> pa.Table:
    """Without what only some destinations take: lists, and descriptions of columns."""
    columns, fields = [], []
    for field, column in zip(rows.schema, rows.columns, strict=True):
        if pa.types.is_list(field.type):
            column = pa.chunked_array([pa.array(map(_json, column.to_pylist()), pa.string())])
        columns.append(column)
        fields.append(pa.field(field.name, column.type, nullable=field.nullable))
    return pa.table(columns, schema=pa.schema(fields))


def _json(value: list[str] | None) -> str | None:
    return None if value is None else json.dumps(value)
