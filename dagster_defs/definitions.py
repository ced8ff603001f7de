"""One W&B project in Dagster: exported every hour, its best accuracies written back.

The page to read first, and to copy. `dagster dev -m dagster_defs.definitions` needs:

    WB_OPS_ENTITY, WB_OPS_PROJECT   the W&B project; they name the assets
    WB_OPS_WAREHOUSE                where the tables go, such as duckdb:////data/experiments.duckdb
    WANDB_API_KEY                   or a login in netrc; read when a step runs, not before
    WANDB_BASE_URL                  for a self-hosted server

Steps that read W&B are in the pool `wandb_api`, steps that write to it in `wandb_write`: with
`dagster instance concurrency set wandb_api 1`, two launches of one export do not overlap.
"""

from __future__ import annotations

import os

import dagster as dg

from wb_ops.dagster import (
    WandbResource,
    WarehouseResource,
    build_wandb_assets,
    build_wandb_backfill_asset,
)

# One row a run; each further column becomes a summary key. A metric `val/acc` is the column
# val__acc (table _wb_columns has them all). NaN would win every max.
BEST_VAL_ACC = """
    select run_id, max(val_acc) as best_val_acc
    from history
    where val_acc <> 'NaN'
    group by run_id
"""
REQUIRED = ("WB_OPS_ENTITY", "WB_OPS_PROJECT", "WB_OPS_WAREHOUSE")


def build_definitions(
    *,
    entity: str,
    project: str,
    warehouse: WarehouseResource,
    wandb: WandbResource | None = None,
    best_sql: str = BEST_VAL_ACC,
) -> dg.Definitions:
    """Return the code location for one project, from explicit values; no request is made.

    The schedule is off until it is switched on. To materialize everything in this process:
    `dg.materialize(list(defs.assets), resources=dict(defs.resources))`.
    """
    export = build_wandb_assets(entity=entity, project=project)
    best_metrics = build_wandb_backfill_asset(
        name="best_metrics", entity=entity, project=project, sql=best_sql
    )
    hourly = dg.define_asset_job(
        "wandb_hourly", dg.AssetSelection.assets(*export.keys, *best_metrics.keys)
    )
    return dg.Definitions(
        assets=[export, best_metrics],
        jobs=[hourly],
        schedules=[dg.ScheduleDefinition(job=hourly, cron_schedule="0 * * * *")],
        resources={"wandb": wandb or WandbResource(), "warehouse": warehouse},
    )


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
    )
