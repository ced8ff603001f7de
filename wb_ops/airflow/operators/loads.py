"""Loads that no asset event has told of yet.

Airflow takes a task's events when the task succeeds; a load is committed before. What a try has
committed that failed then, or was killed, is told of by the next one that succeeds: another try of
the task, or another Dag run whose export has the same outlet. An event has the partition of its Dag
run, so a partition's loads are told of by Dag runs of that partition alone; several of them may run
at once. What a load has written, the warehouse knows; here are only the ids, in Airflow's state
stores (3.3 and newer; before that a try tells of its own load).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow.sdk import Asset, BaseOperator

from wb_ops.airflow.operators.stores import logged

if TYPE_CHECKING:
    from airflow.sdk import Context

    from wb_ops.export import ExportReport
    from wb_ops.warehouse import Warehouse

LOADS_KEY = "wandb_loads"
# Of tries that were killed before they committed, ids stay behind.
MAX_LOADS = 200


def assets_of(operator: BaseOperator) -> Iterator[Asset]:
    """The outlets that are assets."""
    return (outlet for outlet in operator.outlets if isinstance(outlet, Asset))


def remember_load(operator: BaseOperator, context: Context, load_id: str) -> None:
    """Note a load before it is committed."""
    for notes in _notes(operator, context):
        with logged("a load was not noted in a state store"):
            notes.write(_joined(notes.read(), [load_id])[-MAX_LOADS:])


def unannounced_loads(
    operator: BaseOperator, context: Context, warehouse: Warehouse, report: ExportReport
) -> dict[str, Any]:
    """Return what the events have to tell of: `loads`, this one last, and their rows together.

    What the warehouse does not know was not committed, or is of an export into another one.
    """
    noted: list[str] = []
    for notes in _notes(operator, context):
        with logged("a state store was not asked for earlier loads"):
            noted = _joined(noted, notes.read())
    written = _written(warehouse, report.dataset, [one for one in noted if one != report.load_id])
    rows = {"runs": report.runs, "history_rows": report.history_rows}
    for load in written.values():
        rows = {name: count + (load[name] or 0) for name, count in rows.items()}
    return {**rows, "loads": [*written, report.load_id]}


def forget_loads(operator: BaseOperator, context: Context, told: Collection[str]) -> None:
    """Forget the loads that the outlets' events tell of.

    The task keeps them: its success is not recorded yet. One that is cleared tells again. The
    assets do not: of a last try that is killed between this and the record of its success, no
    later Dag run tells.
    """
    for notes in _notes(operator, context, of_task=False):
        with logged("a state store still has the loads that are told of"):
            notes.write([one for one in notes.read() if one not in told])


def _written(warehouse: Warehouse, dataset: str, noted: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return the rows that the warehouse has of these loads, in their order."""
    from wb_ops.warehouse.sql import literals

    if not noted:
        return {}
    sql = f"select load_id, runs, history_rows from _wb_loads where load_id in ({literals(noted)})"
    rows = {row["load_id"]: row for row in warehouse.query(sql, dataset).to_pylist()}
    return {one: rows[one] for one in noted if one in rows}


@dataclass(frozen=True, slots=True)
class _Notes:
    """The ids that one store has of one partition."""

    store: Any
    key: str

    def read(self) -> list[str]:
        return list(self.store.get(self.key) or ())

    def write(self, load_ids: Sequence[str]) -> None:
        if load_ids:
            self.store.set(self.key, list(load_ids))
        else:
            # An asset has a key for each partition, and partitions have no end.
            self.store.delete(self.key)


def _notes(operator: BaseOperator, context: Context, *, of_task: bool = True) -> Iterator[_Notes]:
    partition = getattr(context["dag_run"], "partition_key", None)
    key = LOADS_KEY if partition is None else f"{LOADS_KEY}:{partition}"
    if of_task and (store := context.get("task_state_store")) is not None:
        yield _Notes(store, key)
    if "asset_state_store" in context:
        for asset in assets_of(operator):
            yield _Notes(context["asset_state_store"][asset], key)


def _joined(first: Sequence[str], second: Sequence[str]) -> list[str]:
    return list(dict.fromkeys([*first, *second]))
