"""One backfill in a process of its own: to be killed at any moment, or to run beside others.

Arguments: server URL, key, warehouse URL, summary key, value, dataset, and "running" to write to
runs that log, too. Prints "ready" before it plans, then, where nothing ends it, one JSON line of
what it did.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from functools import partial

from wb_ops import (
    Api,
    BackfillReport,
    BackfillRequest,
    OutcomeUnknown,
    Warehouse,
    connect,
    execute_backfill,
    plan_backfill,
)


def write(request: BackfillRequest, api: Api, warehouse: Warehouse) -> BackfillReport:
    """The report, also where some values are not there at the end."""
    plan = plan_backfill(request, api, warehouse)
    try:
        return execute_backfill(plan, api, warehouse)
    except OutcomeUnknown as error:
        if error.report is None:
            raise
        return error.report


def run(arguments: Sequence[str], tell: Callable[[str], object]) -> None:
    url, api_key, warehouse_url, key, value, dataset, *words = arguments
    request = BackfillRequest(
        "ann", "trials", compute=lambda run: {key: json.loads(value)}, dataset=dataset,
        include_running="running" in words,
    )  # fmt: skip
    tell("ready")
    with Api({"base_url": url}, api_key=api_key) as api:
        report = write(request, api, connect(warehouse_url))
    document = {
        "written": [value.run_id for value in report.written],
        "conflicts": [value.run_id for value in report.conflicts],
        "unverified": [value.run_id for value in report.unverified],
        "skipped": report.skipped,
        "repaired": report.repaired,
        "rewritten": report.rewritten,
        "requests": report.requests,
        "window_s": report.window_s,
    }
    tell(json.dumps(document))


if __name__ == "__main__":
    run(sys.argv[1:], partial(print, flush=True))
