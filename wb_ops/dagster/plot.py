"""A small picture of the main metric's curves, as Markdown with the image inside.

Needs matplotlib; where it is not installed there is no picture and no complaint.
"""

from __future__ import annotations

import base64
import importlib.util
import io
import math
import re
import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from wb_ops.dagster.partitions import Slice

if TYPE_CHECKING:
    from wb_ops.warehouse import Warehouse

MAX_RUNS = 12
MAX_POINTS = 200
MAX_NAME = 24
# Of fewer values nobody can say which are the outliers.
MIN_VALUES = 20
# Without a wish, the first of these that some key matches, in alphabetical order.
_LIKELY = (r"(val|valid|eval|test).*loss", r"loss", r"(val|valid|eval|test).*acc", r"acc", r"")

_METRICS = """
    select original_key, column_name from _wb_columns
    where table_name = 'history' and upper(type) like 'DOUBLE%' order by original_key
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
    select run_id, display_name, min(_step) as step, avg(value) as value
    from points join runs using (run_id), width
    group by run_id, display_name, floor(_step / width.steps) order by run_id, step
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

    figure = Figure(figsize=(8, 3.2), dpi=80, layout="constrained")
    axes = figure.subplots()
    lines = []
    for run_id in dict.fromkeys(point["run_id"] for point in points):
        curve = [point for point in points if point["run_id"] == run_id]
        steps = [point["step"] for point in curve]
        # A curve of one point is no line.
        marker = "o" if len(curve) == 1 else None
        lines += axes.plot(steps, [point["value"] for point in curve], lw=1.2, marker=marker)
    # Names are texts, never formulas, and none is left out of the legend for its first letter.
    axes.set_xlabel("step")
    axes.set_ylabel(key, parse_math=False)
    legend = figure.legend(lines, [" "] * len(lines), loc="outside right upper", fontsize=8)
    for text, name in zip(legend.get_texts(), _names(points), strict=True):
        text.set(text=name, parse_math=False)
    if limits := robust_limits([point["value"] for point in points]):
        axes.set_ylim(*limits)
        axes.set_title("far outliers are not shown", fontsize=8, loc="right")
    axes.grid(alpha=0.3)
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


def _names(points: Sequence[Mapping[str, Any]]) -> list[str]:
    """What people call the runs, in the order of their curves."""
    names = {point["run_id"]: point["display_name"] or point["run_id"] for point in points}
    return [name[:MAX_NAME] for name in names.values()]


def robust_limits(values: Sequence[float]) -> tuple[float, float] | None:
    """Return the range to show where a few values lie so far off that they would hide the rest."""
    finite = sorted(value for value in values if math.isfinite(value))
    if len(finite) < MIN_VALUES:
        return None
    cuts = statistics.quantiles(finite, n=20)
    low, high = cuts[0], cuts[-1]
    room = high - low
    if room == 0 or (finite[0] >= low - room and finite[-1] <= high + room):
        return None
    near = [value for value in finite if low - room <= value <= high + room]
    margin = (near[-1] - near[0]) * 0.05
    return near[0] - margin, near[-1] + margin


def _markdown(key: str, image: bytes) -> str:
    label = re.sub(r"[\[\]\n]", " ", key)
    return f"![{label}](data:image/png;base64,{base64.b64encode(image).decode()})"
