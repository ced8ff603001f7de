"""What a Dagster partition means in W&B.

A time window is the runs that were *created* in it: a run never moves to another partition. Any
other partition key is the id of one run.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import dagster as dg

from wb_ops.errors import InvalidRequest
from wb_ops.tables.times import filter_time

if TYPE_CHECKING:
    from wb_ops.export.request import ExportRequest

# A Dagster run over many run partitions asks W&B for them by name, in one filter.
MAX_RUN_PARTITIONS = 50


def created_days(start_date: str, *, with_today: bool = True) -> dg.DailyPartitionsDefinition:
    """Return one partition for each UTC day on which runs were created.

    Args:
        start_date: the first day, such as "2026-01-31"; runs created before are not exported.
        with_today: whether the current day is a partition before it has ended.
    """
    return dg.DailyPartitionsDefinition(
        start_date=start_date, timezone="UTC", end_offset=1 if with_today else 0
    )


def run_partitions(
    entity: str, project: str, dataset: str | None = None
) -> dg.DynamicPartitionsDefinition:
    """Return one partition for each W&B run, added by a sensor; for up to about 10,000 runs."""
    from wb_ops.warehouse import chosen_dataset

    name = chosen_dataset(dataset, entity, project)
    return dg.DynamicPartitionsDefinition(name=f"{name}__run_ids")


def backfill_policy_of(specs: Sequence[dg.AssetSpec]) -> dg.BackfillPolicy | None:
    """Return how many partitions one Dagster run takes: a whole range of days, or 50 runs."""
    partitions = [spec.partitions_def for spec in specs if spec.partitions_def is not None]
    if not partitions:
        return None
    if all(isinstance(one, dg.TimeWindowPartitionsDefinition) for one in partitions):
        return dg.BackfillPolicy.single_run()
    return dg.BackfillPolicy.multi_run(max_partitions_per_run=MAX_RUN_PARTITIONS)


@dataclass(frozen=True, slots=True)
class Slice:
    """The partitions that one step was asked for.

    Attributes:
        keys: the partition keys, in order.
        windows: of time-window partitions, start and end of each key; else empty.
    """

    keys: tuple[str, ...]
    windows: tuple[dg.TimeWindow, ...]

    @classmethod
    def of(
        cls, context: dg.AssetExecutionContext, definition: dg.PartitionsDefinition | None
    ) -> Slice | None:
        """The step's partitions, or None for assets without.

        Raises:
            InvalidRequest: the assets have partitions and the step has none (retry: never).
        """
        if definition is None:
            return None
        if not (context.has_partition_key or context.has_partition_key_range):
            raise InvalidRequest(
                "These assets have partitions and this launch has none, so that it would work on "
                "the whole project. Checks launched by themselves have no partition either: they "
                "are answered where partitions are materialized. Materialize the partitions that "
                "are to be checked."
            )
        keys = tuple(context.partition_keys)
        if isinstance(definition, dg.TimeWindowPartitionsDefinition):
            return cls(keys, tuple(definition.time_window_for_partition_key(key) for key in keys))
        return cls(keys, ())

    def narrow(self, request: ExportRequest) -> ExportRequest:
        """Return the request for these partitions only: one export, however many they are."""
        if self.windows:
            return replace(
                request,
                since=self.windows[0].start.astimezone(UTC),
                until=self.windows[-1].end.astimezone(UTC),
            )
        return replace(request, run_ids=self.keys)

    @property
    def filters(self) -> dict[str, Any]:
        """The same choice as a filter that W&B evaluates."""
        if self.windows:
            start, end = self.windows[0].start, self.windows[-1].end
            return {"createdAt": {"$gte": filter_time(start), "$lt": filter_time(end)}}
        return {"name": {"$in": list(self.keys)}}

    @property
    def condition(self) -> str:
        """The same choice as an SQL condition on `runs`."""
        if self.windows:
            start, end = self.windows[0].start, self.windows[-1].end
            return f"created_at >= {_sql_time(start)} and created_at < {_sql_time(end)}"
        from wb_ops.warehouse.sql import literals

        return f"run_id in ({literals(self.keys)})"

    def split(self, runs: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
        """Return the rows of `runs` (run_id, created_at) of each partition."""
        rows: dict[str, list[Mapping[str, Any]]] = {key: [] for key in self.keys}
        for run in runs:
            key = self._key_of(run)
            if key is not None:
                rows[key].append(run)
        return rows

    def _key_of(self, run: Mapping[str, Any]) -> str | None:
        if not self.windows:
            return str(run["run_id"])
        starts = [window.start for window in self.windows]
        at = bisect_right(starts, run["created_at"]) - 1
        return self.keys[at] if at >= 0 and run["created_at"] < self.windows[at].end else None


def _sql_time(moment: datetime) -> str:
    return f"timestamptz '{filter_time(moment)}'"
