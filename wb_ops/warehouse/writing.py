"""A batch into the tables of a dataset: one sequence of statements for every SQL database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import pyarrow as pa

from wb_ops.tables.schemas import SYSTEM_METRICS, TABLES
from wb_ops.warehouse.base import Batch, Committed, Owner, StagedPart, staged_key
from wb_ops.warehouse.layout import Layout, delete_matching, insert, insert_rows, record_owner
from wb_ops.warehouse.placing import Placement, place
from wb_ops.warehouse.sql import Session, literals
from wb_ops.warehouse.staged import (
    StagedGroup,
    check_staged,
    count_in_rows,
    count_staged,
    group_staged,
)
from wb_ops.warehouse.streams import melted, united
from wb_ops.warehouse.views import rebuild_views

_HISTORY_TABLES = ("history", "history_long")
# The database reads rows of one schema by itself, in parallel; a statement must be worth it.
_LARGE_ROWS = 100_000


def write_batch(layout: Layout, batch: Batch) -> Committed:
    """Write a batch; the caller commits."""
    layout.check_owner(batch.owner)
    layout.upgrade()
    has_new_tables = layout.has_changed
    runs = _upsert(layout, "runs", batch.runs)
    if batch.flat is not None and batch.flat.num_rows:
        _write_flat(layout, batch.flat)
    for name in _HISTORY_TABLES:
        _delete_runs(layout, name, batch.replaced)
        _delete_tails(layout, name, batch.tails)
    rows, past_cap, new_columns = _write_history(layout, batch.history)
    _delete_runs(layout, "system_metrics", batch.replaced_system)
    system = _write_system_metrics(layout, batch.system_metrics)
    _mark_deleted(layout, batch.deleted, batch.load_id)
    for name, table in batch.meta.items():
        _upsert(layout, name, table)
    if layout.has_changed:
        rebuild_views(layout, is_new=has_new_tables)
    return Committed(runs, rows, new_columns, long_rows=past_cap, system_rows=system)


def write_journal(
    session: Session, dataset: str, table_name: str, rows: pa.Table, owner: Owner | None
) -> None:
    """Append rows to a journal table; the caller commits."""
    layout = Layout.read(session, dataset)
    if owner is not None:
        layout.check_owner(owner)
    layout.upgrade()
    if owner is not None:
        record_owner(layout, owner)
    insert_rows(layout, table_name, rows)
    if layout.has_changed:
        rebuild_views(layout, is_new=True)


def _upsert(layout: Layout, table_name: str, rows: pa.Table) -> int:
    """Replace rows by the table's key; returns how many were inserted."""
    return insert_rows(layout, table_name, rows, replacing=TABLES[table_name].key)


def _delete_runs(layout: Layout, table_name: str, run_ids: Sequence[str]) -> None:
    if not run_ids:
        return
    # Staging a few ids takes a database longer than the deletion itself.
    layout.session.execute(
        f"DELETE FROM {layout.sql(table_name)} WHERE run_id IN ({literals(run_ids)})"
    )


def _delete_tails(layout: Layout, table_name: str, tails: Mapping[str, int]) -> None:
    if not tails:
        return
    steps = {
        "run_id": pa.array(list(tails), pa.string()),
        "_step": pa.array(list(tails.values()), pa.int64()),
    }
    with layout.session.rows_of(pa.table(steps)) as staged:
        run_id, step = staged.columns["run_id"], staged.columns["_step"]
        layout.session.execute(
            f"DELETE FROM {layout.sql(table_name)} old USING {staged.relation} new "
            f"WHERE old.run_id = new.{run_id} AND old._step >= new.{step}"
        )


def _mark_deleted(layout: Layout, run_ids: Sequence[str], load_id: str) -> None:
    if not run_ids:
        return
    rows = {
        "run_id": pa.array(run_ids, pa.string()),
        "load_id": pa.array([load_id] * len(run_ids), pa.string()),
    }
    with layout.session.rows_of(pa.table(rows)) as staged:
        run_id, load = staged.columns["run_id"], staged.columns["load_id"]
        runs = layout.sql("runs")
        layout.session.execute(
            f"UPDATE {runs} SET deleted_at = now(), _load_id = gone.{load} "
            f"FROM {staged.relation} gone "
            f"WHERE {runs}.run_id = gone.{run_id} AND {runs}.deleted_at IS NULL"
        )


def _write_flat(layout: Layout, flat: pa.Table) -> None:
    """Replace the rows of these runs; a leaf past the cap stays in config and summary only."""
    check_staged(flat.schema, "runs_flat")
    limits = layout.session.limits
    placement = place(
        [name for name in flat.column_names if staged_key(name) is not None],
        layout.known("runs_flat"),
        layout.tables["runs_flat"],
        partial(count_in_rows, flat),
        limits.flat,
        limits.flat_texts,
    )
    layout.add("runs_flat", placement)
    names = _names("runs_flat") | placement.columns
    with layout.session.rows_of(flat.select(list(names))) as staged:
        delete_matching(layout, "runs_flat", staged, ["run_id"])
        insert(layout, "runs_flat", staged.relation, _renamed(staged.columns, names))


def _write_history(layout: Layout, parts: Sequence[StagedPart]) -> tuple[int, int, tuple[str, ...]]:
    """Returns rows of `history`, rows of `history_long`, names of the new columns."""
    groups = group_staged(parts, "history")
    placement = place(
        {column for group in groups for column in group.dynamic},
        layout.known("history"),
        layout.tables["history"],
        partial(count_staged, groups),
        layout.session.limits.history,
    )
    layout.add("history", placement)
    rows = 0
    for some in _inserted_together(groups):
        rows += _insert_history(layout, some, placement)
    past_cap = _insert_long(layout, groups, placement.past_cap) if placement.past_cap else 0
    return rows, past_cap, tuple(placement.added.values())


def _inserted_together(groups: Sequence[StagedGroup]) -> list[list[StagedGroup]]:
    """One statement for each large group, and one for all that are small."""
    small = [group for group in groups if group.rows < _LARGE_ROWS]
    large = [[group] for group in groups if group.rows >= _LARGE_ROWS]
    return [*large, small] if small else large


def _insert_history(layout: Layout, groups: Sequence[StagedGroup], placement: Placement) -> int:
    here = dict.fromkeys(column for group in groups for column in group.dynamic)
    names = _names("history") | {
        column: placement.columns[column] for column in here if column in placement.columns
    }
    session = layout.session
    rows = (
        groups[0].selectable(session, list(names))
        if len(groups) == 1
        else session.rows_of(united(groups, list(names)))
    )
    with rows as staged:
        return insert(layout, "history", staged.relation, _renamed(staged.columns, names))


def _insert_long(layout: Layout, groups: Sequence[StagedGroup], past_cap: Sequence[str]) -> int:
    with layout.session.rows_of(melted(groups, past_cap)) as staged:
        return insert(layout, "history_long", staged.relation, staged.columns)


def _write_system_metrics(layout: Layout, parts: Sequence[StagedPart]) -> int:
    rows = 0
    for group in group_staged(parts, "system_metrics"):
        with group.selectable(layout.session, SYSTEM_METRICS.names) as staged:
            rows += insert(layout, "system_metrics", staged.relation, staged.columns)
    return rows


def _names(table_name: str) -> dict[str, str]:
    """The fixed columns, each under its own name."""
    return {name: name for name in TABLES[table_name].schema.names}


def _renamed(columns: Mapping[str, str], names: Mapping[str, str]) -> dict[str, str]:
    """Name in the table -> column of the relation."""
    return {name: columns[staged] for staged, name in names.items()}
