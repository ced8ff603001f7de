"""Compares computed values with the summaries as they are; decides, writes nothing."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from wb_ops.backfill.request import BackfillRequest, Policy
from wb_ops.backfill.values import Values, values_from_function, values_from_sql
from wb_ops.client.api import Api
from wb_ops.client.documents import split_members
from wb_ops.client.runs import Run
from wb_ops.client.source import Node
from wb_ops.client.writing import same_json
from wb_ops.warehouse import Warehouse

Action = Literal["set", "unchanged", "skipped"]


@dataclass(frozen=True, slots=True)
class PlannedValue:
    """One summary key of one run: what is there, what shall be, and what will be done.

    `old` and `new` are JSON texts; `old` is None where the key is not there.
    """

    run_id: str
    key: str
    old: str | None
    new: str
    action: Action
    reason: str = ""


@dataclass(frozen=True, slots=True)
class BackfillPlan:
    """What a backfill will write; `str(plan)` is for people, `values` for programs."""

    request: BackfillRequest
    backfill_id: str
    values: tuple[PlannedValue, ...]

    @property
    def to_set(self) -> tuple[PlannedValue, ...]:
        """The values that will be written."""
        return tuple(value for value in self.values if value.action == "set")

    @property
    def counts(self) -> dict[str, int]:
        """How many values have each action; skipped ones by their reason."""
        return dict(sorted(Counter(_label(value) for value in self.values).items()))

    def __str__(self) -> str:
        counts = ", ".join(f"{count} {label}" for label, count in self.counts.items())
        lines = [f"backfill {self.backfill_id} of {self.request.owner}: {counts or 'nothing'}"]
        lines += [
            f"  {value.run_id}  {value.key}: {value.old or '(none)'} -> {value.new}"
            for value in self.to_set
        ]
        return "\n".join(lines)


def plan_backfill(request: BackfillRequest, api: Api, warehouse: Warehouse) -> BackfillPlan:
    """Compute the values and compare them with the runs' summaries as they are now.

    Costs one request for 1,000 runs, and what `compute` reads.

    Raises:
        CommError: by the table in `errors`.
        InvalidRequest, WarehouseRefused: the SQL or a value cannot be used (retry: never).
    """
    warehouse.check(request.dataset_name, request.owner)
    source = api.source(str(request.owner))
    nodes = {node["name"]: node for node in source.iter_nodes(request.filters)}
    if request.sql is not None:
        values = values_from_sql(request, request.sql, warehouse)
    else:
        assert request.compute is not None  # noqa: S101 - BackfillRequest has checked
        runs = [Run(source, api.reader, n) for n in nodes.values() if not _why_skipped(request, n)]
        values = values_from_function(request.compute, runs, request.max_workers)
    return BackfillPlan(
        request=request,
        backfill_id=f"bf-{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:8]}",
        values=tuple(_planned(request, values, nodes)),
    )


def _planned(
    request: BackfillRequest, values: Values, nodes: Mapping[str, Node]
) -> Iterator[PlannedValue]:
    for run_id, texts in sorted(values.items()):
        node = nodes.get(run_id)
        held = split_members(node.get("summaryMetrics")) if node else {}
        why = "no such run" if node is None else _why_skipped(request, node)
        for key, new in texts.items():
            old = held.get(key)
            action, reason = _decide(old, new, request.policy, why)
            yield PlannedValue(run_id, key, old, new, action, reason)


def _decide(old: str | None, new: str, policy: Policy, why_skipped: str) -> tuple[Action, str]:
    if why_skipped:
        return "skipped", why_skipped
    if same_json(old, new):
        return "unchanged", ""
    if old is not None and policy == "only_missing":
        return "skipped", "has a value"
    return "set", ""


def _why_skipped(request: BackfillRequest, node: Node) -> str:
    if node.get("readOnly"):
        return "read-only"
    if node.get("state") in ("running", "pending", "preempting") and not request.include_running:
        return str(node["state"])
    return ""


def _label(value: PlannedValue) -> str:
    return f"skipped ({value.reason})" if value.action == "skipped" else value.action
