"""From runs that have ended to what Dagster launches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import dagster as dg

from wb_ops.dagster.cursor import Cursor
from wb_ops.tables.times import parse_server_time

if TYPE_CHECKING:
    from wb_ops.client.source import Node


@dataclass(frozen=True, slots=True)
class EndedRun:
    """A run whose end has not been reported."""

    run_id: str
    at: str
    state: str
    created_at: str

    @classmethod
    def of(cls, node: Node) -> EndedRun:
        """From a run as the server describes it."""
        return cls(node["name"], node["heartbeatAt"], str(node.get("state")), node["createdAt"])

    @property
    def end(self) -> str:
        """Another one when the run is resumed and ends again."""
        return f"{self.run_id}:{self.at}:{self.state}"


def sensor_result(
    new: Sequence[EndedRun], partitions_def: dg.PartitionsDefinition | None, cursor: Cursor
) -> dg.SensorResult:
    """Launch for each run, for each window of creation, or once, as the partitions are."""
    after = cursor.advance((run.run_id, run.at) for run in new).dumps()
    if isinstance(partitions_def, dg.DynamicPartitionsDefinition):
        return dg.SensorResult(
            run_requests=[_run_request([run], run.run_id) for run in new],
            dynamic_partitions_requests=[
                partitions_def.build_add_request([run.run_id for run in new])
            ],
            cursor=after,
        )
    if isinstance(partitions_def, dg.TimeWindowPartitionsDefinition):
        groups = _by_window(new, partitions_def)
        requests = [_run_request(runs, key) for key, runs in groups.items()]
        return dg.SensorResult(run_requests=requests, cursor=after)
    return dg.SensorResult(run_requests=[_run_request(new, None)], cursor=after)


def _run_request(runs: Sequence[EndedRun], partition_key: str | None) -> dg.RunRequest:
    # The page of Dagster's runs can be filtered by these.
    tags = {"wandb/runs": str(len(runs))}
    if len(runs) == 1:
        tags = {"wandb/run_id": runs[0].run_id, "wandb/state": runs[0].state}
    ends = sorted(run.end for run in runs)
    run_key = f"{partition_key or ''} {ends[0]} {ends[-1]} {len(ends)}"
    return dg.RunRequest(run_key=run_key, partition_key=partition_key, tags=tags)


def _by_window(
    new: Sequence[EndedRun], definition: dg.TimeWindowPartitionsDefinition
) -> dict[str, list[EndedRun]]:
    """The runs by the partition of their creation; those without one are left out."""
    groups: dict[str, list[EndedRun]] = {}
    for run in new:
        created = parse_server_time(run.created_at)
        key = definition.get_partition_key_for_timestamp(created.timestamp())
        if definition.has_partition_key(key):
            groups.setdefault(key, []).append(run)
    return groups
