"""The canonical Arrow schema of every table, with meaning and unit of each column.

A batch is checked against its schema before it is written, because most warehouses store a
double in an integer column without an error, rounded or as its bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

# 2: runs_flat, history_long, system_metrics.
SCHEMA_VERSION = 2

TEXT = pa.string()
INT = pa.int64()
DOUBLE = pa.float64()
FLAG = pa.bool_()
TIME = pa.timestamp("us", tz="UTC")
TAGS = pa.list_(pa.string())


@dataclass(frozen=True, slots=True)
class TableSchema:
    """A table's name, its columns and the columns that identify a row."""

    name: str
    schema: pa.Schema
    key: tuple[str, ...]


def _column(
    name: str, type_: pa.DataType, meaning: str, unit: str = "", nullable: bool = True
) -> pa.Field:
    metadata = {"meaning": meaning} | ({"unit": unit} if unit else {})
    return pa.field(name, type_, nullable=nullable, metadata=metadata)


def _key(name: str, type_: pa.DataType, meaning: str) -> pa.Field:
    return _column(name, type_, meaning, nullable=False)


_RUN_ID = _key("run_id", TEXT, "the run's id, last part of its path")
_LOAD_ID = _column("_load_id", TEXT, "load that wrote this row")

RUNS = pa.schema(
    [
        _column("entity", TEXT, "user or team that owns the project"),
        _column("project", TEXT, "project of the run"),
        _RUN_ID,
        _column("display_name", TEXT, "name that people see and can change"),
        _column("state", TEXT, "running, finished, failed, crashed, killed, ..."),
        _column("run_group", TEXT, "the run's group"),
        _column("job_type", TEXT, "the run's job type"),
        _column("sweep", TEXT, "id of the sweep that started the run"),
        _column("tags", TAGS, "tags in the server's order, empty when none"),
        _column("notes", TEXT, "notes on the run"),
        _column("commit", TEXT, "git commit of the run's code"),
        _column("username", TEXT, "user who started the run, null when deleted"),
        _column("created_at", TIME, "when the run was created"),
        _column("heartbeat_at", TIME, "when the run last reported"),
        _column("runtime_s", DOUBLE, "duration as the run's summary states it", "s"),
        _column("history_rows", INT, "history rows as the server counts them", "rows"),
        _column("last_step", INT, "last history step as the server states it"),
        _column("config", TEXT, "config as JSON, unwrapped once, without _wandb"),
        _column("summary", TEXT, "summary as JSON, nested values kept"),
        _column("_floats", TEXT, "JSON list of pointers to strings that stand for special floats"),
        _column("content_hash", TEXT, "SHA-256 over the typed content"),
        _column("deleted_at", TIME, "when the run was found to be gone"),
        _LOAD_ID,
    ]
)

_HISTORY_HEAD = [
    _RUN_ID,
    _key("_step", INT, "history step"),
    _column("_timestamp", DOUBLE, "when the row was logged, as logged", "s since 1970 UTC"),
    _column("logged_at", TIME, "_timestamp as a time"),
    _column("_runtime", DOUBLE, "time since the run's start", "s"),
]
_HISTORY_TAIL = [
    _column("_extra", TEXT, "JSON object of values that are no number or no exact double"),
    _column("_floats", TEXT, "JSON list of pointers to strings that stand for special floats"),
    _LOAD_ID,
]
HISTORY = pa.schema(_HISTORY_HEAD + _HISTORY_TAIL)

# Between these stand the leaves of config and summary, as DOUBLE or text columns.
_FLAT_HEAD = [_RUN_ID]
_FLAT_TAIL = [_LOAD_ID]
RUNS_FLAT = pa.schema(_FLAT_HEAD + _FLAT_TAIL)

HISTORY_LONG = pa.schema(
    [
        _RUN_ID,
        _key("_step", INT, "history step"),
        _key("key", TEXT, "metric as logged; only metrics past the cap of history's columns"),
        _column("value", DOUBLE, "logged value"),
        _LOAD_ID,
    ]
)

SYSTEM_METRICS = pa.schema(
    [
        _RUN_ID,
        _key("timestamp", TIME, "when the value was sampled"),
        _key("key", TEXT, "metric as logged, such as system.cpu"),
        _column("value", DOUBLE, "value"),
        _column("sampled", FLAG, "whether the server may have left out rows"),
        _LOAD_ID,
    ]
)

COLUMNS = pa.schema(
    [
        _key("table_name", TEXT, "table of the column"),
        _key("column_name", TEXT, "name in the warehouse"),
        _column("original_key", TEXT, "key as logged"),
        _column("type", TEXT, "type in the warehouse"),
        _column("first_seen", TIME, "when the column was added"),
    ]
)

STATE = pa.schema(
    [
        _key("scope", TEXT, "hash of what the export asks for"),
        _column("entity", TEXT, "user or team that owns the project"),
        _column("project", TEXT, "project that the dataset belongs to"),
        _column("watermark", TIME, "server time up to which changes were seen"),
        _column("reconciled_at", TIME, "when the whole listing was last compared"),
        _column("schema_version", INT, "version of these schemas"),
        _column("load_id", TEXT, "load that wrote this row"),
        _column("updated_at", TIME, "when this row was written"),
    ]
)

LOADS = pa.schema(
    [
        _key("load_id", TEXT, "the load"),
        _column("plan_id", TEXT, "plan that the load executed"),
        _column("scope", TEXT, "hash of what the export asks for"),
        _column("mode", TEXT, "incremental, reconcile or full"),
        _column("started_at", TIME, "start of the load"),
        _column("finished_at", TIME, "end of the load"),
        _column("runs", INT, "runs written", "rows"),
        _column("history_rows", INT, "history rows written", "rows"),
        _column("requests", INT, "requests sent to the server", "requests"),
        _column("size_bytes", INT, "bytes received from the server", "bytes"),
        _column("status", TEXT, "running, complete, incomplete, or stopped before its end"),
        _column("note", TEXT, "what a reader should know"),
    ]
)

RECEIPTS = pa.schema(
    [
        _RUN_ID,
        _key("table_name", TEXT, "table that the receipt is for"),
        _column("status", TEXT, "complete, growing, unexplained, failed or deleted"),
        _column("rows_read", INT, "rows read from the server", "rows"),
        _column("distinct_steps", INT, "rows after those of one step were merged", "rows"),
        _column("overwritten_cells", INT, "values replaced by a later, different one", "cells"),
        _column("first_step", INT, "first step read"),
        _column("last_step", INT, "last step read"),
        _column("server_rows", INT, "the server's row count, read after the rows", "rows"),
        _column("server_last_step", INT, "the server's last step, read after the rows"),
        _column("source", TEXT, "parquet, parquet+live or paged"),
        _column("size_bytes", INT, "bytes received", "bytes"),
        _column("fingerprint", TEXT, "what is compared to find a change"),
        _column("left_running", FLAG, "whether the run had left the state running"),
        _column("note", TEXT, "what a reader should know"),
        _column("load_id", TEXT, "load that wrote this row"),
        _column("checked_at", TIME, "when the receipt was made"),
    ]
)

BACKFILLS = pa.schema(
    [
        _key("backfill_id", TEXT, "the backfill"),
        _RUN_ID,
        _column("target", TEXT, "what was written: summary, config, tags or notes"),
        _column("key", TEXT, "member of that field"),
        _column("event", TEXT, "intent; written, unchanged, conflict, gone, ...; owed, settled"),
        _column("old_value", TEXT, "JSON text before, null when the key was not there"),
        _column("new_value", TEXT, "JSON text that was to be written, null to take the key out"),
        _column("note", TEXT, "what a reader should know"),
        _column("recorded_at", TIME, "when this line was appended"),
    ]
)

TABLES: dict[str, TableSchema] = {
    table.name: table
    for table in (
        TableSchema("runs", RUNS, ("run_id",)),
        TableSchema("history", HISTORY, ("run_id", "_step")),
        TableSchema("runs_flat", RUNS_FLAT, ("run_id",)),
        TableSchema("history_long", HISTORY_LONG, ("run_id", "_step", "key")),
        TableSchema("system_metrics", SYSTEM_METRICS, ("run_id", "timestamp", "key")),
        TableSchema("_wb_columns", COLUMNS, ("table_name", "column_name")),
        TableSchema("_wb_state", STATE, ("scope",)),
        TableSchema("_wb_loads", LOADS, ("load_id",)),
        TableSchema("_wb_receipts", RECEIPTS, ("run_id", "table_name")),
        TableSchema("_wb_backfills", BACKFILLS, ()),
    )
}


def history_schema(metric_columns: Sequence[str]) -> pa.Schema:
    """Give the schema of `history` with one DOUBLE column for each metric, in sorted order.

    Raises:
        ValueError: a metric column has the name of a fixed column, or occurs twice.
    """
    names = [*HISTORY.names, *metric_columns]
    if len({name.lower() for name in names}) < len(names):
        raise ValueError(f"history columns are not distinct: {sorted(names)}")
    metrics = [_column(name, DOUBLE, "logged metric") for name in sorted(metric_columns)]
    return pa.schema([*_HISTORY_HEAD, *metrics, *_HISTORY_TAIL])


def check_schema(data: pa.Table | pa.RecordBatch, schema: pa.Schema) -> None:
    """Check names, order, types and not-null columns of a batch; metadata is ignored.

    Raises:
        ValueError: the batch differs. This is a bug in what made the batch, not a user's error.
    """
    if data.schema.names != schema.names:
        raise ValueError(f"columns are {data.schema.names}, expected {schema.names}")
    for field, column in zip(schema, data.columns, strict=True):
        if column.type != field.type:
            raise ValueError(f"column {field.name}: got {column.type}, expected {field.type}")
        if not field.nullable and column.null_count:
            raise ValueError(f"column {field.name}: got {column.null_count} nulls, expected none")
