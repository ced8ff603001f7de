"""Load a project once; the kill test ends it at a random moment: URL KEY WORK DATABASE."""

import sys

import dlt

from wb_ops import Api
from wb_ops.dlt import wandb_source

url, key, work, database = sys.argv[1:]
pipeline = dlt.pipeline(
    "wandb", pipelines_dir=work, destination=dlt.destinations.duckdb(database), dataset_name="runs"
)
with Api({"base_url": url}, api_key=key) as api:
    source = wandb_source("ann", "trials", api=api)
    print("ready", flush=True)
    pipeline.run(source)
