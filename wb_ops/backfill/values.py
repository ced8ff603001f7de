"""Where the values of a backfill come from: SQL, a file, a function of the run, a recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from wb_ops.backfill.recipes import Recipe
from wb_ops.backfill.request import BackfillRequest, Compute
from wb_ops.client.api import Api
from wb_ops.client.documents import dump_value
from wb_ops.client.run import Run
from wb_ops.client.scan import MAX_ROWS_IN_FLIGHT
from wb_ops.client.source import Node
from wb_ops.client.together import RowsInFlight, runs_together
from wb_ops.errors import (
    CommError,
    IncompleteHistory,
    InvalidRequest,
    MalformedResponse,
    NotFound,
)
from wb_ops.warehouse import Warehouse

# run id -> key -> JSON text, None where there is no value
Values = dict[str, dict[str, str | None]]

Reasons = dict[str, str]

INCOMPLETE = "history incomplete"


def values_of(
    request: BackfillRequest, api: Api, warehouse: Warehouse, nodes: Sequence[Node]
) -> tuple[Values, Reasons]:
    """Compute the values that a request asks for; `nodes` are the runs that may be written to.

    Also says why there are none of a run that was deleted meanwhile, or whose history is broken or
    incomplete. An undo or a resume computes none: the journal has them.

    Raises:
        InvalidRequest: the SQL, the file or a value cannot be used (retry: never).
        WarehouseRefused: the SQL is wrong (retry: never).
        CommError: by the table in `errors`, where histories are read.
    """
    if request.sql is not None:
        rows = warehouse.query(request.sql, request.dataset_name)
        return values_from_table(rows, "The backfill's SQL"), {}
    if request.file is not None:
        return values_from_table(_read_file(Path(request.file)), str(request.file)), {}
    if request.compute is not None:
        return values_from_function(request.compute, request, api, nodes)
    return {}, {}


def values_from_table(rows: pa.Table, what: str) -> Values:
    """Take the values from a table with one row a run.

    Raises:
        InvalidRequest: no column run_id, a NULL in it, or a run twice (retry: never).
    """
    if "run_id" not in rows.column_names or rows.num_columns < 2:
        raise InvalidRequest(
            f"{what} returns {rows.column_names}: it must return run_id and a column for each key."
        )
    values: Values = {}
    for row in rows.to_pylist():
        run_id = row.pop("run_id")
        if not isinstance(run_id, str) or run_id in values:
            raise InvalidRequest(
                f"{what} returns run_id {run_id!r}"
                f"{' twice' if run_id in values else ''}: one row for each run."
            )
        values[run_id] = _texts(row, run_id)
    return values


def values_from_function(
    compute: Compute, request: BackfillRequest, api: Api, nodes: Sequence[Node]
) -> tuple[Values, Reasons]:
    """Call the function for each run, several at once; what else it raises is raised."""
    reasons = Reasons()
    room = RowsInFlight(MAX_ROWS_IN_FLIGHT)

    def one(run: Run) -> tuple[str, dict[str, str | None]]:
        try:
            with room.hold(run.history_line_count):
                return run.id, _texts(compute(run), run.id)
        except (NotFound, MalformedResponse, IncompleteHistory) as error:
            reasons[run.id] = _why(error)
            return run.id, {}
        except Exception as error:
            error.add_note(f"This was raised while the values of run {run.id} were computed.")
            raise

    source = api.source(str(request.owner))
    is_checked = not request.include_incomplete
    runs = runs_together(source, api.reader, nodes, require_complete=is_checked)
    with ThreadPoolExecutor(request.max_workers, "wb_ops-compute") as pool:
        values = dict(pool.map(one, runs))
    # The plan shows a value of such a run for each key that it would have, or that others have.
    known = compute.writes if isinstance(compute, Recipe) else ()
    keys = known or sorted({key for texts in values.values() for key in texts}) or ["(all)"]
    return values | {run_id: dict.fromkeys(keys) for run_id in reasons}, reasons


def _why(error: CommError) -> str:
    if isinstance(error, IncompleteHistory):
        return INCOMPLETE
    return "deleted since it was listed" if isinstance(error, NotFound) else "history unreadable"


def _read_file(path: Path) -> pa.Table:
    try:
        if path.suffix.lower() == ".csv":
            # An empty cell is no value; NaN is one. Run ids may look like numbers.
            options = pa_csv.ConvertOptions(
                null_values=[""], strings_can_be_null=True, column_types={"run_id": pa.string()}
            )
            return pa_csv.read_csv(path, convert_options=options)
        return pq.read_table(path)
    except (OSError, pa.ArrowException) as exc:
        raise InvalidRequest(
            f"{path} cannot be read as {'CSV' if path.suffix.lower() == '.csv' else 'parquet'}: "
            f"{exc}"
        ) from exc


def _texts(values: Mapping[str, Any], run_id: str) -> dict[str, str | None]:
    """JSON texts of the values; a None (SQL NULL) is no value."""
    if not isinstance(values, Mapping):
        raise InvalidRequest(
            f"Run {run_id}: the function returned {values!r}: it must return a dict of keys and "
            "values, an empty one where there are none."
        )
    for key in values:
        if not isinstance(key, str):
            raise InvalidRequest(
                f"Run {run_id}: the key {key!r} is of type {type(key).__name__}: keys are text."
            )
    try:
        return {key: None if value is None else dump_value(value) for key, value in values.items()}
    except (TypeError, ValueError) as exc:
        raise InvalidRequest(f"Run {run_id}: {exc}") from exc
