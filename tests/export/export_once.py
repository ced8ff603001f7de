"""One export in a process of its own, in many small commits, to be killed at any moment."""

from __future__ import annotations

import sys

from wb_ops import Api, ExportRequest, connect, execute_export, plan_export

if __name__ == "__main__":
    url, key, warehouse_url, mode = sys.argv[1:]
    warehouse = connect(warehouse_url)
    request = ExportRequest("ann", "trials", mode=mode, max_cells=20_000, max_workers=4)
    print("ready", flush=True)
    with Api({"base_url": url}, api_key=key) as api:
        execute_export(plan_export(request, api, warehouse), api, warehouse)
