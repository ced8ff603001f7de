"""What the demo prints of the warehouse, and the plot."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table

from wb_ops import ExportRequest, Warehouse

RECEIPTS = """
    select r.display_name as run, c.status, c.rows_read as rows, c.server_rows,
           c.first_step, c.last_step, c.source
    from _wb_receipts c join runs r using (run_id)
    where c.table_name = 'history' order by r.display_name
"""
BEST = """
    select display_name as run, state, config ->> 'model' as model, config ->> 'lr' as lr,
           config ->> 'hidden' as hidden,
           round((summary ->> 'best_val_acc')::double, 4) as best_val_acc
    from runs where summary ->> 'best_val_acc' is not null
    order by best_val_acc desc limit 5
"""
SIZES = """
    select (select count(*) from runs) as runs, (select count(*) from history) as history,
           (select count(*) from _wb_columns) as metrics
"""
CURVES = """
    select display_name as run, epoch, val_loss, val_acc from history join runs using (run_id)
    where state = 'finished' order by display_name, epoch
"""


def receipts(warehouse: Warehouse, request: ExportRequest) -> Table:
    """The receipts: rows read against rows that the server counts."""
    return _table(warehouse, request, RECEIPTS, "receipts")


def best_runs(warehouse: Warehouse, request: ExportRequest) -> Table:
    """The best runs, from the warehouse after the second export."""
    return _table(warehouse, request, BEST, "best runs, by SQL on the warehouse")


def table_sizes(warehouse: Warehouse, request: ExportRequest) -> str:
    """One line about the warehouse."""
    row = warehouse.query(SIZES, request.dataset_name).to_pylist()[0]
    return (
        f"demo-output/wandb.duckdb: {row['runs']} runs, {row['history']} history rows, "
        f"{row['metrics']} metrics, schema {request.dataset_name}"
    )


def learning_curves(warehouse: Warehouse, request: ExportRequest, path: Path) -> None:
    """Plot validation loss and accuracy of each finished run by epoch, as PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    curves = warehouse.query(CURVES, request.dataset_name).to_pandas()
    figure, axes = pyplot.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    for axis, metric, title in zip(
        axes, ("val_loss", "val_acc"), ("validation loss", "validation accuracy"), strict=True
    ):
        for name, rows in curves.groupby("run"):
            axis.plot(rows["epoch"], rows[metric], label=name, linewidth=1.4)
        axis.set(xlabel="epoch", title=title)
        axis.grid(alpha=0.3)
    axes[0].set_yscale("log")
    axes[1].legend(fontsize=7, loc="lower right")
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


def next_steps(console: Console, output: Path) -> None:
    """What to do with one's own project."""
    console.print(
        f"""
Written: {output}/wandb.duckdb and {output}/learning_curves.png

Your own project:
  export WANDB_API_KEY=...            # and WANDB_BASE_URL for a self-hosted server
  .venv/bin/wb-ops export ENTITY/PROJECT --to duckdb:///wandb.duckdb --dry-run
  .venv/bin/wb-ops export ENTITY/PROJECT --to duckdb:///wandb.duckdb
Deploy: dagster_defs/definitions.py for Dagster, airflow_dags/ for Airflow.""",
        highlight=False,
    )


def _table(warehouse: Warehouse, request: ExportRequest, sql: str, title: str) -> Table:
    rows = warehouse.query(sql, request.dataset_name)
    table = Table(title=title, title_justify="left")
    for name in rows.column_names:
        is_text = str(rows.schema.field(name).type) == "string"
        table.add_column(name, justify="left" if is_text else "right")
    for row in rows.to_pylist():
        table.add_row(*("" if value is None else str(value) for value in row.values()))
    return table
