"""Where the values of a backfill come from: SQL on the warehouse, or a function of the run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from wb_ops.backfill.request import BackfillRequest, Compute
from wb_ops.client.documents import dump_value
from wb_ops.client.runs import Run
from wb_ops.errors import InvalidRequest
from wb_ops.warehouse import Warehouse

# run id -> summary key -> JSON text
Values = dict[str, dict[str, str]]


def values_from_sql(request: BackfillRequest, sql: str, warehouse: Warehouse) -> Values:
    """Run the query; one row a run.

    Raises:
        InvalidRequest: no column run_id, a NULL in it, or a run twice (retry: never).
        WarehouseRefused: the SQL is wrong (retry: never).
    """
    rows = warehouse.query(sql, request.dataset_name)
    if "run_id" not in rows.column_names or rows.num_columns < 2:
        raise InvalidRequest(
            f"The backfill's SQL returns {rows.column_names}: "
            "it must return run_id and a column for each summary key."
        )
    values: Values = {}
    for row in rows.to_pylist():
        run_id = row.pop("run_id")
        if not isinstance(run_id, str) or run_id in values:
            raise InvalidRequest(
                f"The backfill's SQL returns run_id {run_id!r}"
                f"{' twice' if run_id in values else ''}: group by run_id."
            )
        values[run_id] = _texts(row, run_id)
    return values


def values_from_function(compute: Compute, runs: Sequence[Run], max_workers: int) -> Values:
    """Call the function for each run, several at once; what it raises is raised."""

    def one(run: Run) -> tuple[str, dict[str, str]]:
        return run.id, _texts(compute(run), run.id)

    with ThreadPoolExecutor(max_workers, "wb_ops-compute") as pool:
        return dict(pool.map(one, runs))


def _texts(values: Mapping[str, Any], run_id: str) -> dict[str, str]:
    """JSON texts of the values; a None (SQL NULL) is no value."""
    try:
        return {key: dump_value(value) for key, value in values.items() if value is not None}
    except (TypeError, AttributeError) as exc:
        raise InvalidRequest(f"Run {run_id}: {exc}") from exc
