"""A batch as changes of tables, in the order in which they are written: state last."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc

from wb_ops.tables.schemas import COLUMNS, DOUBLE, HISTORY_LONG, TABLES, TEXT, history_schema
from wb_ops.warehouse.base import Batch, staged_key, staged_name, staged_text
from wb_ops.warehouse.lake.rows import Rows, of_keys, of_runs, of_tails
from wb_ops.warehouse.placing import Placement, is_text, place
from wb_ops.warehouse.sql import Limits
from wb_ops.warehouse.staged import (
    StagedGroup,
    check_staged,
    count_in_rows,
    count_staged,
    group_staged,
)

# Values read at once: 32 MB of numbers.
CELLS = 4_000_000

_TYPE_NAMES = {DOUBLE: "DOUBLE", TEXT: "VARCHAR"}
_LAST = ("_wb_receipts", "_wb_loads", "_wb_state")


@dataclass(frozen=True, slots=True)
class Change:
    """What one commit does to one table.

    Attributes:
        table_name: the table.
        columns: dynamic columns that the rows may have -> type; no others.
        gone: rows that are removed first.
        batches: gives the rows to insert, anew at each call; each batch has the fixed columns and
            some of the dynamic ones.
    """

    table_name: str
    columns: Mapping[str, pa.DataType] = field(default_factory=dict)
    gone: Sequence[Rows] = ()
    batches: Callable[[], Iterable[pa.RecordBatch]] = tuple

    @property
    def has_rows(self) -> bool:
        """Whether there is a row to insert."""
        return any(batch.num_rows for batch in self.batches())

    def __bool__(self) -> bool:
        return bool(self.gone) or self.has_rows


def table_schema(table_name: str, columns: Mapping[str, pa.DataType]) -> pa.Schema:
    """Give the schema of a table with these dynamic columns, sorted, before its last columns."""
    if table_name == "history":
        return history_schema(list(columns))
    fixed = list(TABLES[table_name].schema)
    dynamic = [pa.field(name, columns[name]) for name in sorted(columns)]
    return pa.schema([*fixed[:-1], *dynamic, *fixed[-1:]]) if dynamic else pa.schema(fixed)


class Registry:
    """The names of dynamic columns, and those that this commit adds."""

    def __init__(self, registered: pa.Table) -> None:
        self._names: dict[str, dict[str, str]] = {"history": {}, "runs_flat": {}}
        for row in registered.to_pylist():
            staged = staged_text if row["type"] == _TYPE_NAMES[TEXT] else staged_name
            self._names[row["table_name"]][staged(row["original_key"])] = row["column_name"]
        self.added: list[dict[str, object]] = []

    def known(self, table_name: str) -> dict[str, str]:
        """Give staged column -> name."""
        return self._names[table_name]

    def types(self, table_name: str) -> dict[str, pa.DataType]:
        """Give name -> type of all dynamic columns."""
        return {name: _type(staged) for staged, name in self._names.get(table_name, {}).items()}

    def add(self, table_name: str, placement: Placement) -> None:
        """Register the new columns of a batch."""
        self._names[table_name] |= placement.added
        self.added += [
            {
                "table_name": table_name,
                "column_name": name,
                "original_key": staged_key(staged),
                "type": _TYPE_NAMES[_type(staged)],
                "first_seen": datetime.now(UTC),
            }
            for staged, name in placement.added.items()
        ]


@dataclass(frozen=True, slots=True)
class Plan:
    """All changes of a batch, in order, and the names of the new columns of `history`."""

    changes: list[Change]
    new_columns: tuple[str, ...]


def plan_changes(batch: Batch, registry: Registry, limits: Limits, held_runs: pa.Table) -> Plan:
    """Turn a batch into changes; `held_runs` are the rows that the table has of deleted runs.

    Raises:
        ValueError: rows are not in their schema (a bug in what made the batch).
        pyarrow.ArrowInvalid: a staged file is no parquet file, or is cut.
    """
    history, new_columns = _history(batch, registry, limits)
    flat = _flat(batch, registry, limits)
    system = group_staged(batch.system_metrics, "system_metrics")
    columns = pa.Table.from_pylist(registry.added, schema=COLUMNS)
    changes = [
        Change("_wb_columns", batches=columns.to_batches),
        *history,
        Change(
            "system_metrics",
            gone=of_runs(batch.replaced_system),
            batches=partial(_read_all, system),
        ),
        upsert("runs", _with_deletions(batch, held_runs)),
        *flat,
        *(upsert(name, rows) for name, rows in sorted(batch.meta.items(), key=_position)),
    ]
    return Plan([change for change in changes if change], new_columns)


def upsert(table_name: str, rows: pa.Table) -> Change:
    """Replace rows by the table's key."""
    return Change(table_name, gone=of_keys(table_name, rows), batches=rows.to_batches)


def _position(item: tuple[str, pa.Table]) -> int:
    return _LAST.index(item[0]) if item[0] in _LAST else -1


def _history(
    batch: Batch, registry: Registry, limits: Limits
) -> tuple[list[Change], tuple[str, ...]]:
    groups = group_staged(batch.history, "history")
    placement = place(
        {column for group in groups for column in group.dynamic},
        registry.known("history"),
        TABLES["history"].schema.names,
        partial(count_staged, groups),
        limits.history,
    )
    registry.add("history", placement)
    gone = [*of_runs(batch.replaced), *of_tails(batch.tails)]
    types = registry.types("history")
    past_cap = set(placement.past_cap)
    changes = [
        Change("history", types, gone, partial(_read_named, groups, placement.columns)),
        Change("history_long", {}, gone, partial(_read_long, groups, past_cap)),
    ]
    return changes, tuple(placement.added.values())


def _flat(batch: Batch, registry: Registry, limits: Limits) -> list[Change]:
    flat = batch.flat
    if flat is None or not flat.num_rows:
        return []
    check_staged(flat.schema, "runs_flat")
    placement = place(
        [name for name in flat.column_names if staged_key(name) is not None],
        registry.known("runs_flat"),
        TABLES["runs_flat"].schema.names,
        partial(count_in_rows, flat),
        limits.flat,
        limits.flat_texts,
    )
    registry.add("runs_flat", placement)
    named = _named(flat, placement.columns)
    return [
        Change(
            "runs_flat",
            registry.types("runs_flat"),
            of_keys("runs_flat", flat),
            named.to_batches,
        )
    ]


def _with_deletions(batch: Batch, held_runs: pa.Table) -> pa.Table:
    """The batch's runs, and those that it marks deleted."""
    rows = pa.concat_tables([batch.runs, held_runs])
    is_gone = pc.and_(
        pc.is_in(rows["run_id"], pa.array(batch.deleted, pa.string())),
        pc.is_null(rows["deleted_at"]),
    )
    now = pa.scalar(datetime.now(UTC), rows.schema.field("deleted_at").type)
    marks = {"deleted_at": now, "_load_id": pa.scalar(batch.load_id, TEXT)}
    for name, mark in marks.items():
        index = rows.schema.get_field_index(name)
        values = pc.if_else(is_gone, mark, rows[name])
        rows = rows.set_column(index, rows.schema.field(name), values)
    return rows


def _read_named(
    groups: Sequence[StagedGroup], names: Mapping[str, str]
) -> Iterator[pa.RecordBatch]:
    for group in groups:
        wanted = [name for name in group.schema.names if staged_key(name) is None or name in names]
        for batch in _read(group, wanted):
            yield _named(batch, names)


def _named(rows: pa.Table, names: Mapping[str, str]) -> pa.Table:
    """Give the staged columns of a table or batch their names; some have none and are left out."""
    wanted = [name for name in rows.schema.names if staged_key(name) is None or name in names]
    return rows.select(wanted).rename_columns([names.get(name, name) for name in wanted])


def _read_long(groups: Sequence[StagedGroup], past_cap: set[str]) -> Iterator[pa.RecordBatch]:
    """A row for each value of the metrics that have no column."""
    for group in groups:
        columns = [name for name in group.dynamic if name in past_cap]
        if not columns:
            continue
        for batch in _read(group, ["run_id", "_step", "_load_id", *columns]):
            for column in columns:
                # Only what is kept is filtered: there may be thousands of columns.
                rows = batch.select(["run_id", "_step", "_load_id", column])
                yield _long(rows.filter(rows[column].is_valid()), column)


def _long(batch: pa.RecordBatch, column: str) -> pa.RecordBatch:
    values = {
        "run_id": batch["run_id"],
        "_step": batch["_step"],
        "key": pa.repeat(staged_key(column), batch.num_rows),
        "value": batch[column],
        "_load_id": batch["_load_id"],
    }
    return pa.record_batch([values[name] for name in HISTORY_LONG.names], schema=HISTORY_LONG)


def _read_all(groups: Sequence[StagedGroup]) -> Iterator[pa.RecordBatch]:
    for group in groups:
        yield from _read(group, group.schema.names)


def _read(group: StagedGroup, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    return group.iter_batches(columns, max(1, CELLS // len(columns)))


def _type(staged: str) -> pa.DataType:
    return TEXT if is_text(staged) else DOUBLE
