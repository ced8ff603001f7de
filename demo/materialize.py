"""Materializes the Dagster assets of dagster_defs in this process."""

from __future__ import annotations

import os
import sys

import dagster as dg

from dagster_defs.definitions import build_definitions
from demo.steps import report_stream
from wb_ops.dagster import WarehouseResource

EXPORTED = ("runs", "history")


def main() -> int:
    """Materialize runs and history; reports one line an asset."""
    report = report_stream()
    definitions = build_definitions(
        entity=os.environ["WB_OPS_ENTITY"],
        project=os.environ["WB_OPS_PROJECT"],
        warehouse=WarehouseResource(url=os.environ["WB_OPS_WAREHOUSE"]),
    )
    keys = definitions.resolve_asset_graph().get_all_asset_keys()
    job = definitions.resolve_implicit_global_asset_job_def()
    with dg.DagsterInstance.ephemeral() as instance:
        result = job.execute_in_process(
            instance=instance,
            asset_selection=[key for key in keys if key.path[-1] in EXPORTED],
            raise_on_error=False,
        )
    for event in result.get_asset_materialization_events():
        materialization = event.step_materialization_data.materialization
        rows = materialization.metadata["dagster/row_count"].value
        name = materialization.asset_key.to_user_string()
        print(f"asset {name:<24} {rows:>6} rows", file=report, flush=True)
    return 0 if result.success else 1


if __name__ == "__main__":
    sys.exit(main())
