"""The views of a dataset, and the one over all datasets of a warehouse."""

from __future__ import annotations

from wb_ops.tables.schemas import RUNS
from wb_ops.warehouse.base import staged_key
from wb_ops.warehouse.layout import Layout
from wb_ops.warehouse.sql import literal, quoted

ALL_RUNS = "all_runs"


def rebuild_views(layout: Layout, *, is_new: bool) -> None:
    """Bring the views up to the tables; `is_new`: the dataset, or its table `runs`, changed."""
    session = layout.session
    for name, select in (
        ("history_tall", _history_tall(layout)),
        ("wb_completeness", _completeness(layout)),
    ):
        session.execute(f"CREATE OR REPLACE VIEW {layout.sql(name)} AS {select}")
    shared_schema = session.shared_schema() if is_new else None
    if shared_schema is not None:
        selects = [
            f"SELECT {literal(dataset)} AS dataset, {_runs_columns()} "
            f"FROM {quoted(dataset, 'runs')}"
            for dataset in _datasets(layout)
        ]
        session.execute(
            f"CREATE OR REPLACE VIEW {quoted(shared_schema, ALL_RUNS)} AS "
            + " UNION ALL ".join(selects)
        )


def _history_tall(layout: Layout) -> str:
    """Every metric, one row a value, under the key as it was logged."""
    past_cap = f"SELECT run_id, _step, key, value FROM {layout.sql('history_long')}"
    keys = {
        quoted(name): staged_key(staged) or "" for staged, name in layout.known("history").items()
    }
    if not keys:
        return past_cap
    wide = layout.session.unpivoted(layout.sql("history"), ("run_id", "_step"), keys)
    return f"{wide} UNION ALL {past_cap}"


def _completeness(layout: Layout) -> str:
    """The receipt of each history: what was read beside what the server counts."""
    return (
        "SELECT r.run_id, runs.display_name, runs.state, r.status, "
        'r.rows_read AS "rows", r.distinct_steps, r.first_step, r.last_step, '
        "r.server_rows, r.server_last_step, r.overwritten_cells, r.source, r.note, r.checked_at "
        f"FROM {layout.sql('_wb_receipts')} r "
        f"LEFT JOIN {layout.sql('runs')} runs ON runs.run_id = r.run_id "
        "WHERE r.table_name = 'history'"
    )


def _runs_columns() -> str:
    return ", ".join(quoted(name) for name in RUNS.names)


def _datasets(layout: Layout) -> list[str]:
    """Name the datasets of the warehouse; one that an upgrade has not reached yet is left out."""
    names = ", ".join(literal(name) for name in RUNS.names)
    rows = layout.session.select(
        "SELECT CAST(table_schema AS text) AS name FROM information_schema.columns "
        "WHERE table_catalog = current_database() AND table_name = 'runs' "
        f"AND column_name IN ({names}) "
        "AND table_schema IN (SELECT table_schema FROM information_schema.tables "
        "WHERE table_catalog = current_database() AND table_name = '_wb_state') "
        f"GROUP BY table_schema HAVING count(*) = {len(RUNS.names)} ORDER BY table_schema"
    )
    return [str(name) for name in rows.column(0).to_pylist()]
