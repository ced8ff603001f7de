"""Runs that changed after their day was exported: seen by an observable source, then caught."""

# No postponed annotations here: Dagster reads those of the body as they stand, not resolved.

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import dagster as dg

from wb_ops.dagster.assets import op_name
from wb_ops.dagster.resource import WandbResource
from wb_ops.dagster.retries import DEFAULT_RETRY_POLICY, wandb_retries
from wb_ops.dagster.run_versions import NO_RUNS, Lookback, refuse_short

if TYPE_CHECKING:
    from wb_ops.export.request import ExportRequest

DATA_VERSION_TAG = "dagster/data_version"
POOL_TAG = "dagster/concurrency_key"
LOOKBACK = timedelta(days=14)

Condition: TypeAlias = dg.AutomationCondition[dg.AssetKey]


def late_data_condition(lookback: timedelta = LOOKBACK, retry_cron: str = "0 * * * *") -> Condition:
    """Return `eager()` for all partitions of the lookback window, and for those that failed.

    The window is that of `build_wandb_changes` with the same `lookback`.

    `eager()` by itself looks at the latest partition only and never sees a run that changed
    later. It also launches once for each change: without more, a day whose export failed would
    stay as it was until its next change. Such days are launched again at each tick of
    `retry_cron` (UTC), until one succeeds.
    """
    # Dagster declares the conditions with different type arguments.
    window = cast(Condition, dg.AutomationCondition.in_latest_time_window(lookback_delta=lookback))
    eager = dg.AutomationCondition.eager().replace(
        dg.AutomationCondition.in_latest_time_window(), window
    )
    failed = (
        dg.AutomationCondition.execution_failed()
        & dg.AutomationCondition.cron_tick_passed(retry_cron)
        & ~dg.AutomationCondition.in_progress()
    )
    return cast(Condition, eager) | (window & cast(Condition, failed))


def build_wandb_changes(
    *,
    entity: str,
    project: str,
    partitions_def: dg.TimeWindowPartitionsDefinition,
    dataset: str | None = None,
    filters: Mapping[str, Any] | None = None,
    states: Sequence[str] | None = None,
    lookback: timedelta = LOOKBACK,
    name: str = "changes",
    group_name: str = "wandb",
    pool: str | None = "wandb_api",
    wandb: WandbResource | None = None,
) -> dg.SourceAsset:
    """Return an observable source whose data versions tell which partitions have changed.

    Each observation lists the runs created inside the lookback window (one request for 1,000
    runs) and reports the partitions whose version has changed since they were last observed. The
    version covers what the listing says of the runs that have ended: state, counters, config,
    summary, tags, notes. A run that still writes counts once it ends. It needs the resource
    `wandb`.

    Give it to `build_wandb_assets` as `deps=[...]`, with
    `automation_condition=late_data_condition(...)`, and observe it by `build_changes_schedule`.

    Args:
        partitions_def: that of the assets downstream.
        lookback: partitions that begin at most so long before the end of the newest one are
            looked at; the condition downstream takes the same. At least one partition long, and
            older changes need a reconcile or a backfill.
        entity, project, dataset, filters, states: as ExportRequest.
        name: last part of the asset key; the dataset is the first.
        pool: the pool that its step takes a slot of.
        wandb: a resource of this asset alone; by default the location's `wandb`.

    Raises:
        DagsterInvalidDefinitionError: the lookback is shorter than a partition.
    """
    from wb_ops.export import ExportRequest

    refuse_short(partitions_def, lookback)
    request = ExportRequest(
        entity=entity,
        project=project,
        dataset=dataset,
        filters=filters or {},
        states=tuple(states) if states else None,
    )
    key = dg.AssetKey([request.dataset_name, name])
    observer = _Observer(request, key, partitions_def, lookback)
    decorate = dg.observable_source_asset(
        key=key,
        partitions_def=partitions_def,
        group_name=group_name,
        description=f"Which days of {entity}/{project} have runs that changed.",
        metadata={"wandb/path": str(request.owner)},
        # Observable sources have no argument for a pool; this tag is one.
        op_tags={} if pool is None else {POOL_TAG: pool},
    )
    return decorate(_unbound(observer) if wandb is None else _bound(observer, wandb))


def build_changes_schedule(
    changes: dg.SourceAsset,
    cron_schedule: str = "*/15 * * * *",
    *,
    retry_policy: dg.RetryPolicy | None = DEFAULT_RETRY_POLICY,
) -> dg.ScheduleDefinition:
    """Return a schedule that observes what `build_wandb_changes` returned; off at first.

    Without the retry policy an error that passes, such as a 502, fails the observation at once.
    """
    name = op_name("__".join(changes.key.path))
    job = dg.define_asset_job(
        f"observe_{name}",
        dg.AssetSelection.assets(changes.key),
        op_retry_policy=retry_policy,
    )
    return dg.ScheduleDefinition(job=job, cron_schedule=cron_schedule)


def _unbound(observer: "_Observer") -> Callable[..., dg.DataVersionsByPartition]:
    def changes(context: dg.OpExecutionContext, wandb: WandbResource) -> dg.DataVersionsByPartition:
        return observer.observe(context, wandb)

    return changes


def _bound(
    observer: "_Observer", wandb: WandbResource
) -> Callable[..., dg.DataVersionsByPartition]:
    def changes(context: dg.OpExecutionContext) -> dg.DataVersionsByPartition:
        with wandb.process_config_and_initialize_cm() as access:
            return observer.observe(context, access)

    return changes


@dataclass(frozen=True, slots=True)
class _Observer:
    request: "ExportRequest"
    key: dg.AssetKey
    partitions_def: dg.TimeWindowPartitionsDefinition
    lookback: timedelta

    def observe(
        self, context: dg.OpExecutionContext, wandb: WandbResource
    ) -> dg.DataVersionsByPartition:
        with wandb_retries(context):
            window = Lookback.of(self.partitions_def, self.lookback, datetime.now(UTC))
            changed = {
                partition: version
                for partition, version in window.versions(self.request, wandb).items()
                if (_last_version(context.instance, self.key, partition) or NO_RUNS) != version
            }
            context.log.info(f"changed: {', '.join(changed) or 'none'} of {len(window.windows)}")
            return dg.DataVersionsByPartition(changed)


def _last_version(instance: dg.DagsterInstance, key: dg.AssetKey, partition: str) -> str | None:
    wanted = dg.AssetRecordsFilter(asset_key=key, asset_partitions=[partition])
    for record in instance.fetch_observations(wanted, limit=1).records:
        if (observation := record.asset_observation) is not None:
            return observation.tags.get(DATA_VERSION_TAG)
    return None
