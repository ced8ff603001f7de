"""Sweeps: made by seeding, read through GraphQL. What they found is read off their runs."""

from __future__ import annotations

import base64
import json
import math
import sqlite3
from datetime import datetime
from typing import Required, TypedDict, cast

import yaml
from graphql import GraphQLResolveInfo

from wb_ops.devserver.backend import Backend
from wb_ops.devserver.jsontext import Json, JsonSource
from wb_ops.devserver.listing import connection
from wb_ops.devserver.nodes import Node
from wb_ops.devserver.queries import context_of, row_of
from wb_ops.devserver.wire_time import now_text, to_wire_time


class SweepSeed(TypedDict, total=False):
    """A sweep to make; ``config`` is a dict, or YAML as people write it."""

    entity: Required[str]
    project: Required[str]
    sweep_id: Required[str]
    config: Required[JsonSource]
    state: str
    display_name: str | None
    description: str | None
    run_count_expected: int | None
    created_at: datetime | str
    updated_at: datetime | str


def seed_sweep(backend: Backend, seed: SweepSeed) -> None:
    """Make a sweep, ``FINISHED`` unless it is said otherwise; its runs name it in ``sweep``."""
    config = seed["config"]
    text = config if isinstance(config, str) else yaml.safe_dump(dict(config), sort_keys=False)
    created_at = to_wire_time(seed.get("created_at") or now_text())
    columns: dict[str, object] = {
        "project_pk": backend.store.ensure_project(seed["entity"], seed["project"]),
        "name": seed["sweep_id"],
        "display_name": seed.get("display_name"),
        "config": text,
        "state": seed.get("state", "FINISHED"),
        "description": seed.get("description"),
        "run_count_expected": seed.get("run_count_expected"),
        "created_at": created_at,
        "updated_at": to_wire_time(seed.get("updated_at") or created_at),
    }
    backend.database.write(
        f"insert into sweep({', '.join(columns)}) values({', '.join('?' * len(columns))})",
        tuple(columns.values()),
    )


def total_sweeps(source: Node, info: GraphQLResolveInfo) -> int:
    """How many sweeps the project has."""
    return len(_rows(source, info))


def sweeps(
    source: Node, info: GraphQLResolveInfo, after: str | None = None, first: int | None = None
) -> Node:
    """The project's sweeps in pages, in the order they were made."""
    return connection(_rows(source, info), lambda row: _sweep_node(row, info), first, after)


def sweep(source: Node, info: GraphQLResolveInfo, sweepName: str) -> Node | None:
    """A sweep of the project, null where there is none."""
    found = [row for row in _rows(source, info) if row["name"] == sweepName]
    return _sweep_node(found[0], info) if found else None


def _rows(source: Node, info: GraphQLResolveInfo) -> list[sqlite3.Row]:
    return context_of(info).backend.database.read(
        "select * from sweep where project_pk = ? order by pk", (row_of(source)["pk"],)
    )


def _sweep_node(row: sqlite3.Row, info: GraphQLResolveInfo) -> Node:
    config = cast(dict[str, Json], yaml.safe_load(row["config"]) or {})
    summaries = context_of(info).backend.database.read(
        "select summary from run where project_pk = ? and sweep = ?",
        (row["project_pk"], row["name"]),
    )
    return {
        "id": base64.b64encode(f"Sweep:v1:{row['name']}:{row['pk']}".encode()).decode(),
        "name": row["name"],
        "displayName": row["display_name"],
        "method": str(config.get("method", "custom")),
        "state": row["state"],
        "description": row["description"],
        "config": row["config"],
        "bestLoss": _best(config, [json.loads(one["summary"], strict=False) for one in summaries]),
        "createdAt": row["created_at"],
        "updatedAt": row["updated_at"],
        "runCount": len(summaries),
        "runCountExpected": row["run_count_expected"],
    }


def _best(config: dict[str, Json], summaries: list[dict[str, Json]]) -> float | None:
    metric = config.get("metric")
    if not isinstance(metric, dict):
        return None
    found = [summary.get(str(metric.get("name"))) for summary in summaries]
    numbers = [float(one) for one in found if isinstance(one, int | float) and math.isfinite(one)]
    choose = max if metric.get("goal") == "maximize" else min
    return choose(numbers, default=None)
