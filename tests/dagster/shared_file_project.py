"""The code location of test_shared_file.py: two projects, two processes, one DuckDB file."""

import os

import dagster as dg

from wb_ops.dagster import WandbResource, WarehouseResource, build_wandb_assets


def both() -> dg.JobDefinition:
    """Both exports at once, each in a process of its own."""
    assets = [build_wandb_assets(entity="ann", project=name, pool=None) for name in ("one", "two")]
    job = dg.define_asset_job("both", dg.AssetSelection.assets(*assets))
    defs = dg.Definitions(
        assets=assets,
        jobs=[job],
        resources={
            "wandb": WandbResource(base_url=os.environ["TEST_SERVER"]),
            "warehouse": WarehouseResource(url=os.environ["TEST_WAREHOUSE"]),
        },
        executor=dg.multiprocess_executor,
    )
    return defs.resolve_job_def("both")
