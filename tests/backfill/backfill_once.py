"""One backfill in a process of its own: to be killed at any moment, or to run beside others.

Arguments: server URL, key, warehouse URL, summary key, value, dataset. Prints "ready" before it
plans, then, where nothing ends it, one JSON line of what it did.
"""

from __future__ import annotations

import json
import sys

from wb_ops import Api, BackfillRequest, connect, execute_backfill, plan_backfill

if __name__ == "__main__":
    url, api_key, warehouse_url, key, value, dataset = sys.argv[1:]
    warehouse = connect(warehouse_url)
    request = BackfillRequest(
        "ann", "trials", compute=lambda run: {key: json.loads(value)}, dataset=dataset
    )
    print("ready", flush=True)
    with Api({"base_url": url}, api_key=api_key) as api:
        report = execute_backfill(plan_backfill(request, api, warehouse), api, warehouse)
    document = {
        "written": len(report.written),
        "conflicts": len(report.conflicts),
        "skipped": report.skipped,
        "repaired": report.repaired,
        "rewritten": report.rewritten,
        "requests": report.requests,
        "window_s": report.window_s,
    }
    print(json.dumps(document), flush=True)
