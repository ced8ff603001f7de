"""One export in a process of its own, in many small commits, to be killed at any moment."""

from __future__ import annotations

import sys

from wb_ops import Api, ExportRequest, connect, execute_export, plan_export
from wb_ops.settings import Settings

if __name__ == "__main__":
    url, key, warehouse_url, mode = sys.argv[1:]
    warehouse = connect(warehouse_url)
    request = ExportRequest(
        "ann", "trials", mode=mode, max_cells=20_000, max_workers=4,
        tables=("runs", "history", "system_metrics"),
    )  # fmt: skip
    print("ready", flush=True)
    # The server has faults: they are tried again, as a patient user would.
    settings = Settings(api_key=key, base_url=url, max_attempts=12)
    with Api(settings=settings) as api:
        execute_export(plan_export(request, api, warehouse), api, warehouse)
