"""What the destination holds of finished loads, read back as the state of an export."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
from dlt.common.destination.exceptions import DestinationUndefinedEntity, SqlClientNotAvailable

from wb_ops.dlt.counted import damaged_of, numbers_of
from wb_ops.dlt.pipelines import (
    active_pipeline,
    finished_loads,
    is_merging,
    iter_rows,
    rows_of,
)
from wb_ops.dlt.proof import Key, Place, order_loads, place_of
from wb_ops.errors import WarehouseRefused
from wb_ops.tables.schemas import RUNS, TABLES

log = logging.getLogger("wb_ops")

_STATE = ("_wb_columns", "_wb_receipts", "_wb_state")
_GONE = ("runs", "deleted")
IDS_PER_QUERY = 500

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a destination holds.

    Attributes:
        tables: columns, receipts and state.
        damaged: the receipts, by run and table, that it does not hold as they were given.
        finished: the loads that dlt has recorded as finished.
        places: which load is newer than another.
        next_number: the number of a load that begins now.
    """

    tables: dict[str, pa.Table] = field(
        default_factory=lambda: {name: TABLES[name].schema.empty_table() for name in _STATE}
    )
    damaged: AbstractSet[Key] = frozenset()
    finished: AbstractSet[str] = frozenset()
    places: Mapping[str, Place] = field(default_factory=dict)
    next_number: int = 1


def read_loaded(tables: Collection[str], is_counted: bool) -> Loaded:
    """Read columns, receipts and state that the destination has, and which receipts are not true.

    Receipts and state count only if dlt has recorded their load as finished. Where nothing can be
    read, nothing is known, and everything is read anew. If this load is counted, a receipt for
    `runs` or one of `tables` that is not there as it was given, or its rows are not, comes as
    failed: it is read again.

    Raises:
        WarehouseRefused: two loads at a time gave one column to two metrics (retry: never).
    """
    pipeline = active_pipeline()
    if pipeline is None or pipeline.destination is None:
        return Loaded()
    try:
        with pipeline.sql_client() as client:
            finished = finished_loads(client)
            rows = {name: rows_of(client, name) for name in _STATE}
            numbers = numbers_of(client)
            damaged = set()
            if is_counted and is_merging(pipeline):
                damaged = damaged_of(client, rows["_wb_receipts"], finished, numbers)
    except DestinationUndefinedEntity:
        return Loaded()  # the first load
    except SqlClientNotAvailable:
        log.warning("this destination cannot be read back: every load reads all runs again")
        return Loaded()
    places, next_number = order_loads(finished, numbers)
    wanted = {key for key in damaged if key[1] in {"runs", *tables}}
    newest = {
        name: _newest(rows[name], TABLES[name].key, finished, places)
        for name in ("_wb_receipts", "_wb_state")
    }
    loaded = {
        "_wb_columns": _columns(rows["_wb_columns"], pipeline.dataset_name),
        "_wb_receipts": _receipts(newest["_wb_receipts"], finished, wanted),
        "_wb_state": [one for one in newest["_wb_state"].values() if one["load_id"] in finished],
    }
    read = {name: pa.Table.from_pylist(loaded[name], schema=TABLES[name].schema) for name in _STATE}
    return Loaded(read, damaged, finished, places, next_number)


def read_moments() -> pa.Table:
    """Read id and creation of the runs that the destination holds; other columns are null.

    To be asked only where `read_loaded` has found receipts.
    """
    with active_pipeline().sql_client() as client:
        found = iter_rows(client, "runs", columns=("run_id", "created_at"))
        rows = {row["run_id"]: row for row in found}
    return pa.Table.from_pylist(list(rows.values()), schema=RUNS)


def read_runs(run_ids: Sequence[str], places: Mapping[str, Place]) -> pa.Table:
    """Read the newest row of each of these runs that the destination holds."""
    rows: dict[str, Row] = {}
    with active_pipeline().sql_client() as client:
        for at in range(0, len(run_ids), IDS_PER_QUERY):
            found = list(iter_rows(client, "runs", run_ids=run_ids[at : at + IDS_PER_QUERY]))
            found.sort(key=lambda row: place_of(row["_load_id"], places))
            rows |= {row["run_id"]: row for row in found}
    texts = {run_id: json.loads(row["tags"] or "[]") for run_id, row in rows.items()}
    values = [{**row, "tags": texts[run_id]} for run_id, row in rows.items()]
    return pa.Table.from_pylist(values, schema=RUNS)


def _newest(
    rows: Iterable[Row],
    key: Sequence[str],
    finished: AbstractSet[str],
    places: Mapping[str, Place],
) -> dict[tuple[str, ...], Row]:
    """The newest row of each key, of a finished load if there is one."""
    by_age = sorted(
        rows, key=lambda row: (row["load_id"] in finished, place_of(row["load_id"], places))
    )
    return {tuple(row[name] for name in key): row for row in by_age}


def _columns(rows: Iterable[Row], dataset: str) -> list[Row]:
    """One row for each column; one of two metrics is refused."""
    first: dict[Key, Row] = {}
    for row in rows:
        held = first.setdefault((row["table_name"], row["column_name"]), row)
        if any(held[name] != row[name] for name in ("original_key", "type")):
            keys = " and ".join(f"{one['original_key']!r} ({one['type']})" for one in (held, row))
            raise WarehouseRefused(
                f"Two loads at the same time gave the column {row['column_name']!r} of "
                f"{row['table_name']!r} in {dataset!r} to {keys}: load into a new dataset "
                "(dataset_name=), one load at a time."
            )
    return list(first.values())


def _receipts(
    held: dict[tuple[str, ...], Row], finished: AbstractSet[str], damaged: AbstractSet[Key]
) -> list[Row]:
    """The receipts of finished loads; those of what is to be read again say so."""
    gone = {run for (run, name), row in held.items() if (name, row["status"]) == _GONE}
    # Of a run that is gone only its own row can be written once more.
    again = {(run, name) for run, name in damaged if name == "runs" or run not in gone}
    for run, name in again:
        # One that is lost is made up.
        row = held.setdefault((run, name), {"run_id": run, "table_name": name})
        row["status"] = "failed"
        # That of a history stays: it knows which metrics were asked for.
        if name == "runs":
            row["fingerprint"] = ""
    return [row for key, row in held.items() if key in again or row["load_id"] in finished]
