"""One W&B project in Dagster: exported every hour, the best value of a metric written back.

The page to read first, and to copy. `dagster dev -m dagster_defs.definitions` needs:

    WB_OPS_ENTITY, WB_OPS_PROJECT   the W&B project; they name the assets
    WB_OPS_WAREHOUSE                where the tables go, such as duckdb:////data/experiments.duckdb
    WB_OPS_BEST_METRIC              optional: a metric as logged, such as val/acc; its best value is
                                    written into each finished run's summary as best_val/acc
    WB_OPS_BEST_MODE                max (the default) or min
    WANDB_API_KEY                   or a login in netrc; read when a step runs, not before
    WANDB_BASE_URL                  for a self-hosted server

Steps that read W&B are in the pool `wandb_api`, steps that write to it in `wandb_write`; their
limits and the retries of runs are the instance's: dagster.yaml beside this file is an example.
The schedule and the sensor are off until one of them is switched on; either is enough.
"""

from __future__ import annotations

import os
from datetime import timedelta

import dagster as dg

from wb_ops.dagster import (
    WandbResource,
    WandbTableProps,
    WandbTranslator,
    WarehouseResource,
    build_finished_runs_sensor,
    build_wandb_assets,
    build_wandb_backfill_asset,
)
from wb_ops.warehouse.sql import MAX_NAME_BYTES, literal, quoted

# One row a run; each further column becomes a summary key. `history_tall` has every metric under
# its name as logged; a column of `history` is faster in a project with hundreds of metrics. The
# comparison leaves out NaN, which would win every max, and the infinities.
BEST = """
    select run_id, {mode}(value) as {summary_key}
    from history_tall join runs using (run_id)
    where key = {metric} and abs(value) < 'Infinity'
        and runs.state = 'finished' and runs.deleted_at is null
    group by run_id
"""
REQUIRED = ("WB_OPS_ENTITY", "WB_OPS_PROJECT", "WB_OPS_WAREHOUSE")


class Fresh(WandbTranslator):
    """Our names are the usual ones; what is older than a day is worth a look."""

    def get_asset_spec(self, props: WandbTableProps) -> dg.AssetSpec:
        """Return the usual spec with a freshness policy."""
        policy = dg.FreshnessPolicy.time_window(fail_window=timedelta(days=1))
        spec = super().get_asset_spec(props)
        return spec.replace_attributes(freshness_policy=policy)


def build_definitions(
    *,
    entity: str,
    project: str,
    warehouse: WarehouseResource,
    wandb: WandbResource | None = None,
    best_metric: str | None = None,
    best_mode: str = "max",
) -> dg.Definitions:
    """Return the code location for one project, from explicit values; no request is made.

    Without `best_metric` nothing is written back to W&B.

    To materialize everything in this process:
    `dg.materialize(list(defs.assets), resources=dict(defs.resources))`.
    """
    names = Fresh()
    export = build_wandb_assets(entity=entity, project=project, translator=names)
    assets = [export]
    if best_metric:
        sql = best_sql(best_metric, best_mode)
        best_metrics = build_wandb_backfill_asset(
            name="best_metrics", entity=entity, project=project, sql=sql, translator=names
        )
        assets.append(best_metrics)
    everything = dg.AssetSelection.assets(*assets)
    hourly = dg.define_asset_job("wandb_hourly", everything)
    return dg.Definitions(
        assets=assets,
        jobs=[hourly],
        schedules=[dg.ScheduleDefinition(job=hourly, cron_schedule="0 * * * *")],
        sensors=[build_finished_runs_sensor(entity=entity, project=project, target=everything)],
        resources={"wandb": wandb or WandbResource(), "warehouse": warehouse},
    )


def best_sql(metric: str, mode: str) -> str:
    """Return the SELECT of the best value of a metric in each finished run."""
    if mode not in ("max", "min"):
        raise dg.DagsterInvalidDefinitionError(f"WB_OPS_BEST_MODE={mode!r}: give max or min.")
    summary_key = f"best_{metric}"
    # Cut, it would be another key of the summary.
    if len(summary_key.encode()) > MAX_NAME_BYTES:
        raise dg.DagsterInvalidDefinitionError(
            f"WB_OPS_BEST_METRIC={metric!r}: {summary_key} is longer than the {MAX_NAME_BYTES} "
            "bytes that PostgreSQL keeps of a column's name. Write it back by the recipe "
            "best(...) instead of SQL (docs/dagster.md)."
        )
    return BEST.format(mode=mode, summary_key=quoted(summary_key), metric=literal(metric))


@dg.definitions
def defs() -> dg.Definitions:
    """What Dagster loads: the project that the environment names."""
    if missing := [name for name in REQUIRED if not os.environ.get(name)]:
        raise dg.DagsterInvalidDefinitionError(
            f"Set {', '.join(missing)} for dagster_defs (see dagster_defs/definitions.py)."
        )
    return build_definitions(
        entity=os.environ["WB_OPS_ENTITY"],
        project=os.environ["WB_OPS_PROJECT"],
        warehouse=WarehouseResource(url=dg.EnvVar("WB_OPS_WAREHOUSE")),
        best_metric=os.environ.get("WB_OPS_BEST_METRIC"),
        best_mode=os.environ.get("WB_OPS_BEST_MODE", "max"),
    )
