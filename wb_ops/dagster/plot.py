"""A small picture of the main metric's curves, as Markdown with the image inside.

Needs matplotlib; where it is not installed there is no picture and no complaint.
"""

from __future__ import annotations

import base64
import importlib.util
import io
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from wb_ops.dagster.partitions import Slice

if TYPE_CHECKING:
    from wb_ops.warehouse import Warehouse

MAX_RUNS = 12
MAX_POINTS = 200
# Without a wish, the first of these that some key matches, in alphabetical order.
_LIKELY = (r"(val|valid|eval|test).*loss", r"loss", r"(val|valid|eval|test).*acc", r"acc", r"")

_METRICS = """
    select original_key, column_name from _wb_columns
    where table_name = 'history' and type like 'DOUBLE%' order by original_key
"""
_CURVES = """
    with newest as (
        select run_id from runs
        where {condition} and run_id in (select run_id from history where {column} is not null)
        order by created_at desc limit {max_runs}
    ),
    points as (
        select run_id, _step, {column} as value from history
        where run_id in (select run_id from newest) and {column} is not null
    ),
    width as (select (max(_step) - min(_step)) / {max_points} + 1 as steps from points)
    select run_id, min(_step) as step, avg(value) as value
    from points, width group by run_id, floor(_step / width.steps) order by run_id, step
"""


def curves_markdown(
    warehouse: Warehouse, dataset: str, metric: str | None, part: Slice | None
) -> str | None:
    """Return the picture, or None: no matplotlib, no such metric, or no value of it.

    The newest 12 runs that logged the metric, each with at most about 200 points.
    """
    if importlib.util.find_spec("matplotlib") is None:
        return None
    columns = warehouse.query(_METRICS, dataset).to_pylist()
    chosen = _main_metric({row["original_key"]: row["column_name"] for row in columns}, metric)
    if chosen is None:
        return None
    key, column = chosen
    sql = _CURVES.format(
        column='"' + column.replace('"', '""') + '"',
        condition=part.condition if part else "deleted_at is null",
        max_runs=MAX_RUNS,
        max_points=MAX_POINTS,
    )
    points = warehouse.query(sql, dataset).to_pylist()
    return _markdown(key, _draw(key, points)) if points else None


def _main_metric(columns: Mapping[str, str], metric: str | None) -> tuple[str, str] | None:
    if metric is not None:
        return (metric, columns[metric]) if metric in columns else None
    for pattern in _LIKELY:
        for key, column in columns.items():
            if re.search(pattern, key, re.IGNORECASE):
                return key, column
    return None


def _draw(key: str, points: Sequence[Mapping[str, Any]]) -> bytes:
    # Without pyplot: no window system, and no state shared between threads.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3), dpi=72, layout="constrained")
    axes = figure.subplots()
    for run_id in dict.fromkeys(point["run_id"] for point in points):
        curve = [point for point in points if point["run_id"] == run_id]
        steps = [point["step"] for point in curve]
        # A curve of one point is no line.
        marker = "o" if len(curve) == 1 else None
        axes.plot(steps, [point["value"] for point in curve], lw=1, marker=marker, label=run_id)
    axes.set(xlabel="step", ylabel=key)
    axes.legend(fontsize=6, ncols=2)
    axes.grid(alpha=0.3)
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


def _markdown(key: str, image: bytes) -> str:
    label = re.sub(r"[\[\]\n]", " ", key)
    return f"![{label}](data:image/png;base64,{base64.b64encode(image).decode()})"
