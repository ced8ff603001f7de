"""Order of runs: ``+field`` ascending, ``-field`` descending, no sign ascending."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import TypeAlias

from wb_ops.devserver.filters import COLUMNS, Fields, FilterRefusedError
from wb_ops.devserver.jsontext import Json

DEFAULT_ORDER = "-created_at"
SortKey: TypeAlias = "tuple[int, float | str]"


def parse_order(order: str) -> tuple[str, bool]:
    """The field path and whether it is descending.

    Raises:
        FilterRefusedError: the path is no run column, config key or summary key.
    """
    path = order.lstrip("+-")
    if path not in COLUMNS and not path.startswith(("config.", "summary_metrics.")):
        raise FilterRefusedError(f"invalid order {order!r}")
    return path, order.startswith("-")


def sort_key(path: str) -> Callable[[Fields], SortKey]:
    """A total order over the values at a path: null, numbers (NaN first), strings, the rest."""
    return lambda run: _rank(run.value(path))


def _rank(value: Json) -> SortKey:
    if value is None:
        return 0, 0
    if isinstance(value, float) and math.isnan(value):
        return 1, 0
    if isinstance(value, int | float):
        return 2, value
    return (3, value) if isinstance(value, str) else (4, json.dumps(value))
