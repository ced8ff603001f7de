"""Sweeps: their configuration, their runs, and the best of them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import datetime
from functools import cached_property
from typing import Any

import yaml

from wb_ops.client.history import HistoryReader
from wb_ops.client.items import ProjectItem
from wb_ops.client.operations import SWEEP, SWEEPS
from wb_ops.client.paging import iter_pages
from wb_ops.client.responses import missing
from wb_ops.client.run import Run
from wb_ops.client.runs import Runs
from wb_ops.client.source import RunSource
from wb_ops.errors import MalformedResponse

_RUN_COLUMNS = frozenset(
    {"created_at", "createdAt", "heartbeat_at", "heartbeatAt", "updatedAt", "name", "sweep"}
)
_PREFIXES = frozenset({"config", "summary_metrics", "tags"})

# PyYAML builds values without a check: "!!int ''" is an IndexError, 2026-13-45 a ValueError.
_UNREADABLE = (
    yaml.YAMLError, ArithmeticError, AttributeError, LookupError, RecursionError, TypeError,
    ValueError,
)  # fmt: skip


class Sweep(ProjectItem):
    """One sweep, as it was when it was read. Runs name its `id` in `sweep_name`.

    `state` is PENDING, RUNNING, PAUSED, CANCELED, FINISHED, or newer.
    """

    _pages = "sweeps"

    @property
    def name(self) -> str:
        """The name given in the app, else that of the configuration, else the id."""
        return str(self._node.get("displayName") or self.config.get("name") or self.id)

    @property
    def method(self) -> str | None:
        """How parameters are chosen: grid, random, bayes, or the program's own way."""
        return self._node.get("method")

    @property
    def description(self) -> str | None:
        """What people wrote about the sweep."""
        return self._node.get("description")

    @property
    def best_loss(self) -> float | None:
        """The best value of the sweep's metric so far, as the server keeps it."""
        return self._node.get("bestLoss")

    @property
    def run_count(self) -> int:
        """How many runs the sweep had when it was read."""
        return int(self._node.get("runCount") or 0)

    @property
    def expected_run_count(self) -> int | None:
        """How many runs the sweep is to have; None for no end."""
        return self._node.get("runCountExpected")

    @property
    def updated_at(self) -> datetime | None:
        """When the sweep last changed, UTC."""
        return self._time("updatedAt")

    @cached_property
    def config(self) -> dict[str, Any]:
        """The sweep's configuration: method, metric, parameters, ...

        Raises:
            MalformedResponse: it is no YAML (retry: backoff).
        """
        try:
            config = yaml.safe_load(str(self._node.get("config") or "{}"))
        except _UNREADABLE as exc:
            path = "/".join(self.path)
            raise MalformedResponse(f"The config of sweep {path} is no YAML.", exc) from exc
        return config if isinstance(config, dict) else {}

    @property
    def order(self) -> str | None:
        """The order that puts the best run first; None for a sweep without a metric.

        Raises:
            MalformedResponse: the metric is no mapping (retry: backoff).
        """
        metric = self.config.get("metric") or {}
        if not isinstance(metric, dict):
            path = "/".join(self.path)
            raise MalformedResponse(f"The metric in the config of sweep {path} is no mapping.")
        if "name" not in metric:
            return None
        sign = "-" if metric.get("goal", "minimize") == "maximize" else "+"
        return order_key(f"{sign}{metric['name']}")

    @cached_property
    def runs(self) -> Runs:
        """The sweep's runs, oldest first, lazily."""
        return self._runs("+created_at")

    def best_run(self, order: str | None = None) -> Run | None:
        """The first run by `order`, or by the sweep's metric; one request, None without runs.

        `order` is a summary key, `config.key` or a run's field, with + or - in front (- if none).
        Runs whose value of the metric is no finite number come last: the server sorts a run that
        never logged it first.
        """
        wanted = self.order if order is None else order_key(order)
        if wanted is None:
            return next(iter(self._runs("-created_at")), None)
        ranked = self._runs(wanted)
        if not wanted[1:].startswith("summary_metrics."):
            return next(iter(ranked), None)
        key = wanted[1:].removeprefix("summary_metrics.")
        return next((run for run in ranked if _has_number(run, key)), next(iter(ranked), None))

    def _runs(self, order: str) -> Runs:
        return Runs(self._source, self._reader, {"sweep": self.id}, order)


def order_key(key: str) -> str:
    """The order of the server for a key: a bare name is a summary key, no sign is descending.

    Source: SDK 0.31 `QueryGenerator.format_order_key`, without its None for a run's own fields.
    """
    sign, name = (key[0], key[1:]) if key[:1] in ("+", "-") else ("-", key)
    if name in _RUN_COLUMNS or name.split(".")[0] in _PREFIXES:
        return sign + name
    return f"{sign}summary_metrics.{name}"


def fetch_sweep(source: RunSource, reader: HistoryReader, sweep_id: str) -> Sweep:
    """Read one sweep; one request.

    Raises:
        NotFound: no such project or sweep (retry: never).
    """
    operation = source.operation("GetSweep", SWEEP, name=sweep_id)
    node = source.fetch_project_fields(operation).get("sweep")
    if node is None:
        path = f"{source.path}/{sweep_id}"
        raise missing("sweep", {"operation": operation.name, "path": path})
    return Sweep(source, reader, dict(node))


def iter_sweeps(source: RunSource, reader: HistoryReader, per_page: int) -> Iterator[Sweep]:
    """Yield a project's sweeps lazily, one request a page."""

    def fetch(cursor: str | None, size: int) -> dict[str, Any]:
        operation = source.operation("GetSweeps", SWEEPS, cursor=cursor, perPage=size)
        return source.fetch_project_fields(operation).get("sweeps") or {}

    for page in iter_pages(fetch, per_page):
        for node in page.nodes:
            yield Sweep(source, reader, node)


def _has_number(run: Run, key: str) -> bool:
    value: Any = run.summary
    for part in [key] if key in run.summary else key.split("."):
        value = value.get(part) if hasattr(value, "get") else None
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
