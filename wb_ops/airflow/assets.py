"""A project as Airflow assets: its runs as they end, and the days on which they were created."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from airflow import sdk
from airflow.sdk import Asset, AssetWatcher

from wb_ops.airflow.hooks.wandb import WandbHook
from wb_ops.airflow.sensors.run import default_poll_interval_s
from wb_ops.airflow.triggers.run import TERMINAL_STATES
from wb_ops.airflow.triggers.runs_finished import WandbRunsFinishedEventTrigger
from wb_ops.airflow.uris import days_uri, runs_uri

# The name came with the events that carry partitions of their own.
HAS_RUNTIME_PARTITIONS = hasattr(sdk, "PartitionedAtRuntime")


def wandb_runs_asset(
    path: str,
    *,
    name: str | None = None,
    wandb_conn_id: str = WandbHook.default_conn_name,
    states: Sequence[str] = TERMINAL_STATES,
    filters: Mapping[str, Any] | str | None = None,
    poll_interval_s: float | None = None,
) -> Asset:
    """Return the asset of a project's runs, with a watcher that fires when runs have ended.

    `DAG(schedule=[wandb_runs_asset("my-team/my-project")])` is all that a Dag needs to run on it;
    what an event says is told at WandbRunsFinishedEventTrigger. The triggerer asks W&B once in
    each interval; Dags that name the same project share the watcher.

    Args:
        path: entity/project.
        name: by default wandb://entity/project/runs. Give another one where `states` or `filters`
            differ from those of another Dag on the same project: they make another asset.
        wandb_conn_id: a connection of type `wandb`; it is read in the triggerer.
        states: which ends count.
        filters: which runs: a MongoDB-style dict, or JSON text of one.
        poll_interval_s: seconds between two requests; by default [wandb] poll_interval.

    Raises:
        ValueError: `path` is not entity/project.
        InvalidRequest: `states` is text, or `filters` is no dict (retry: never).
    """
    entity, project = _parse(path)
    trigger = WandbRunsFinishedEventTrigger(
        entity=entity,
        project=project,
        wandb_conn_id=wandb_conn_id,
        states=states,
        filters=filters,
        poll_interval_s=default_poll_interval_s() if poll_interval_s is None else poll_interval_s,
    )
    uri = runs_uri(entity, project)
    watcher = AssetWatcher(name=f"{entity}/{project} runs ended", trigger=trigger)
    own_uri = uri if name is None else f"{uri}/{quote(name, safe='')}"
    return Asset(name=name or uri, uri=own_uri, watchers=[watcher])


def wandb_days_asset(path: str) -> Asset:
    """Return the asset of a project's runs by the day (UTC) on which they were created.

    As an outlet of an export it gets one event for each day that the export has written to, with
    the day (2026-01-31) as partition key; a Dag with
    `schedule=PartitionedAssetTimetable(assets=wandb_days_asset("my-team/my-project"))` runs once
    for each of them. So the ends of runs that a watcher announces, which know no partition, become
    days: a run that ends changes the day on which it began.

    Args:
        path: entity/project.

    Raises:
        ValueError: `path` is not entity/project.
        RuntimeError: Airflow is older than 3.3, where a task's event has no partition of its own.
    """
    entity, project = _parse(path)
    if not HAS_RUNTIME_PARTITIONS:
        raise RuntimeError(
            "wandb_days_asset needs Airflow 3.3 or newer; before that, let Dags run on a plain "
            "outlet of the export and read what its event names by _load_id."
        )
    uri = days_uri(entity, project)
    return Asset(name=uri, uri=uri)


def _parse(path: str) -> tuple[str, str]:
    entity, _, project = path.partition("/")
    if not entity or not project or "/" in project:
        raise ValueError(f"{path!r} is no project: give entity/project.")
    return entity, project
