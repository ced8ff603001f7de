"""A data version for each partition: another one as soon as a run of it has changed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import dagster as dg

from wb_ops.dagster.resource import WandbResource
from wb_ops.tables.times import parse_server_time

if TYPE_CHECKING:
    from wb_ops.client.source import Node
    from wb_ops.export.request import ExportRequest


@dataclass(frozen=True, slots=True)
class Lookback:
    """The partitions that are looked at: key -> time window."""

    windows: Mapping[str, dg.TimeWindow]

    @classmethod
    def of(
        cls, definition: dg.TimeWindowPartitionsDefinition, lookback: timedelta, now: datetime
    ) -> Lookback:
        """Those that begin at most `lookback` before the end of the newest one.

        It is the rule of Dagster's `in_latest_time_window`. A partition that is observed but never
        launched would lose its change: it is not reported a second time.
        """
        windows: dict[str, dg.TimeWindow] = {}
        earliest = None
        for key in reversed(definition.get_partition_keys(current_time=now)):
            window = definition.time_window_for_partition_key(key)
            earliest = earliest or window.end - lookback
            if window.start.timestamp() < earliest.timestamp():
                break
            windows[key] = window
        return cls(dict(reversed(windows.items())))

    def versions(self, request: ExportRequest, wandb: WandbResource) -> dict[str, str]:
        """The version of each partition."""
        if not self.windows:
            return {}
        found: dict[str, list[str]] = {key: [] for key in self.windows}
        for node in self._ended(request, wandb):
            created = _created(node)
            key = next(
                (key for key, one in self.windows.items() if one.start <= created < one.end), None
            )
            if key is not None:
                found[key].append(_digest(node))
        return {key: _hash(sorted(digests)) for key, digests in found.items()}

    def _ended(self, request: ExportRequest, wandb: WandbResource) -> Iterator[Node]:
        from wb_ops.export.listing import whole_filters
        from wb_ops.tables.runs import OPEN_STATES

        start = min(window.start for window in self.windows.values()).astimezone(UTC)
        chosen = whole_filters(replace(request, since=start))
        for node in wandb.get_api().source(str(request.owner)).iter_nodes(chosen):
            if node.get("state") not in OPEN_STATES:
                yield node


def refuse_short(definition: dg.TimeWindowPartitionsDefinition, lookback: timedelta) -> None:
    """Refuse a lookback in which no whole partition would fit.

    Raises:
        DagsterInvalidDefinitionError: one of the first twelve partitions is longer.
    """
    start, longest = definition.start, timedelta(0)
    for _ in range(12):
        window = definition.get_next_partition_window(start, respect_bounds=False)
        if window is None:
            break
        start, longest = window.end, max(longest, window.end - window.start)
    if lookback < longest:
        raise dg.DagsterInvalidDefinitionError(
            f"lookback={lookback} is shorter than a partition ({longest}): Dagster would launch "
            f"none of them for a late edit. Give build_wandb_changes and late_data_condition "
            f"lookback=timedelta(days={-(-longest // timedelta(days=1))}) or more."
        )


def _created(node: Node) -> datetime:
    return parse_server_time(node["createdAt"])


def _digest(node: Node) -> str:
    return _hash([json.dumps(node, sort_keys=True)])


def _hash(texts: list[str]) -> str:
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:32]


# A day without runs is not worth an observation, unless it had some before.
NO_RUNS = _hash([])
