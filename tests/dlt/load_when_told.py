"""Read a whole project, then load it at a word: URL KEY WORK POSTGRES.

Says `busy` where the load raises WarehouseBusy, and from when to when it loaded.
"""

import sys
import time

import dlt

from wb_ops import Api
from wb_ops.dlt import wandb_source
from wb_ops.errors import WarehouseBusy

url, key, work, database = sys.argv[1:]
pipeline = dlt.pipeline(
    "wandb",
    pipelines_dir=work,
    destination=dlt.destinations.postgres(database),
    dataset_name="runs",
)
with Api({"base_url": url}, api_key=key) as api:
    pipeline.extract(wandb_source("ann", "trials", api=api, mode="full"))
pipeline.normalize()
print("ready", flush=True)
sys.stdin.readline()
began = time.time()
try:
    pipeline.load()
except WarehouseBusy as exc:
    print("busy", exc)
print("span", began, time.time(), flush=True)
