"""A sensor that launches for runs that have ended; one request to W&B a tick."""

# No postponed annotations here: Dagster reads that of `wandb` as it stands, not resolved.

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeAlias

import dagster as dg

from wb_ops.dagster.assets import op_name
from wb_ops.dagster.cursor import OVERLAP, Cursor
from wb_ops.dagster.launches import EndedRun, sensor_result
from wb_ops.dagster.resource import WandbResource
from wb_ops.errors import WbOpsError
from wb_ops.tables.times import filter_time

if TYPE_CHECKING:
    from wb_ops.client.filters.builder import Filter

ENDED_STATES = ("finished", "failed", "crashed", "killed", "preempted")
# Dagster gives a sensor 60 s. No request is begun after this, and the last one takes a third of it.
TICK_BUDGET_S = 30.0
# W&B gives no larger page.
MAX_PAGE = 1000

Tick: TypeAlias = dg.SensorResult | dg.SkipReason
Target: TypeAlias = "dg.AssetsDefinition | dg.AssetSelection | dg.JobDefinition"


def build_finished_runs_sensor(
    *,
    entity: str,
    project: str,
    target: Target,
    partitions_def: dg.PartitionsDefinition | None = None,
    filters: Mapping[str, Any] | None = None,
    states: Sequence[str] = ENDED_STATES,
    start_at: datetime | None = None,
    max_runs_per_tick: int = 100,
    minimum_interval_seconds: int = 60,
    name: str | None = None,
    wandb: WandbResource | None = None,
    default_status: dg.DefaultSensorStatus = dg.DefaultSensorStatus.STOPPED,
) -> dg.SensorDefinition:
    """Return a sensor that launches `target` once for each end of a W&B run.

    By the `partitions_def` of the target:

    - none: one launch a tick, however many runs have ended.
    - time windows: one launch for each window in which such runs were *created*; a run created
      before the first window, or in one that is no partition yet, is left to a schedule.
    - dynamic: the run's id becomes a partition, and there is one launch for each run.

    A tick costs one request, and one more for each 1,000 runs that ended in one moment; where W&B
    cannot give a page, smaller ones are asked for, for half a minute at most. What was read by
    then is launched, and the next tick goes on after it. W&B not answering at all, or asking to
    wait, skips the tick and leaves the cursor where it is; what no later tick can cure (a wrong
    key, no such project) fails it. It needs the resource `wandb`. A run's end is its last
    heartbeat: a later edit is not one. One sensor asks for one project: none waits for another.

    Args:
        entity, project, filters: as ExportRequest.
        states: the states that count as ended.
        start_at: runs that ended before are not reported; by default half an hour before the
            first tick that does not fail. Kept from then on: to start anew, clear the cursor in
            Dagster's page of the sensor.
        max_runs_per_tick: the rest is reported by the next ticks, the oldest first; at most 400.
        wandb: a resource of this sensor alone; by default the location's `wandb`.
        default_status: off until it is switched on, because it costs requests.
    """
    if not 1 <= max_runs_per_tick <= 400:
        raise dg.DagsterInvalidDefinitionError("max_runs_per_tick is between 1 and 400.")

    watch = _Watch(
        path=f"{entity}/{project}",
        filters=filters or {},
        states=tuple(states),
        partitions_def=partitions_def,
        max_runs=max_runs_per_tick,
        start_at=start_at,
    )
    decorate = dg.sensor(
        name=name or f"{op_name(entity)}__{op_name(project)}__finished_runs",
        target=target,
        minimum_interval_seconds=minimum_interval_seconds,
        default_status=default_status,
        description=f"Launches when runs of {entity}/{project} have ended.",
    )
    return decorate(_unbound(watch) if wandb is None else _bound(watch, wandb))


def _unbound(watch: "_Watch") -> Callable[..., Tick]:
    def tick(context: dg.SensorEvaluationContext, wandb: WandbResource) -> Tick:
        return watch.tick(context, wandb)

    return tick


def _bound(watch: "_Watch", wandb: WandbResource) -> Callable[..., Tick]:
    def tick(context: dg.SensorEvaluationContext) -> Tick:
        with wandb.process_config_and_initialize_cm() as access:
            return watch.tick(context, access)

    return tick


@dataclass(frozen=True, slots=True)
class _Watch:
    """What one sensor looks for."""

    path: str
    filters: Mapping[str, Any]
    states: tuple[str, ...]
    partitions_def: dg.PartitionsDefinition | None
    max_runs: int
    start_at: datetime | None

    def tick(self, context: dg.SensorEvaluationContext, wandb: WandbResource) -> Tick:
        cursor = _cursor(context, self.start_at or datetime.now(UTC) - OVERLAP)
        try:
            new = self._fetch_new(wandb, cursor)
        except WbOpsError as error:
            if not error.advice.retryable:
                raise
            return _skip(context, cursor, f"{error.message} The next tick asks again.")
        if not new:
            nothing = f"No run of {self.path} has ended since the last tick."
            return _skip(context, cursor, nothing)
        return sensor_result(new, self.partitions_def, cursor)

    def _fetch_new(self, wandb: WandbResource, cursor: Cursor) -> list[EndedRun]:
        """The runs whose end was not reported yet, the oldest first, as many as a tick may have."""
        # So many hold the new ones behind those that were seen. Only where more than a page of
        # runs ended in one moment is a second one asked for.
        size = min(MAX_PAGE, self.max_runs + len(cursor.seen))
        filters = _filters(self.filters, self.states, cursor)
        new: list[EndedRun] = []
        with wandb.open_api(TICK_BUDGET_S) as api:
            listed = api.source(self.path).iter_nodes(filters, "+heartbeat_at", size)
            ended = (EndedRun.of(node) for node in listed if node.get("heartbeatAt"))
            try:
                # What was read is kept when the listing breaks off.
                unseen = (run for run in ended if cursor.is_new(run.run_id, run.at))
                for run in islice(unseen, self.max_runs):
                    new.append(run)
            except WbOpsError as error:
                if not (new and error.advice.retryable):
                    raise
        return new


def _skip(context: dg.SensorEvaluationContext, cursor: Cursor, reason: str) -> dg.SkipReason:
    # The start is kept from the first tick on. A start that moves until something is launched would
    # pass by the runs that end while the daemon is down or W&B is silent.
    context.update_cursor(cursor.dumps())
    return dg.SkipReason(reason)


def _cursor(context: dg.SensorEvaluationContext, start: datetime) -> Cursor:
    try:
        return Cursor.loads(context.cursor, start)
    except ValueError as exc:
        context.log.warning(f"The cursor cannot be read ({exc}); starting at {start}.")
        return Cursor(start)


def _filters(filters: Mapping[str, Any], states: Sequence[str], cursor: Cursor) -> "Filter":
    from wb_ops.client.filters.builder import all_of

    since = {"$gte": filter_time(cursor.at)}
    return all_of(filters, {"state": {"$in": list(states)}, "heartbeatAt": since})
