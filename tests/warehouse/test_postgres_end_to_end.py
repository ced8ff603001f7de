"""An export and a backfill with PostgreSQL between them."""

from __future__ import annotations

import uuid

from wb_ops import (
    Api,
    BackfillRequest,
    ExportRequest,
    connect,
    execute_backfill,
    execute_export,
    plan_backfill,
    plan_export,
)
from wb_ops.devserver import DevServer


def test_what_was_exported_is_written_back(server: DevServer, api: Api, postgres_server: str):
    project = f"trials-{uuid.uuid4().hex}"
    for number in range(3):
        server.seed_run(
            "ann", project, f"r{number}", config={"lr": 0.1},
            history=[{"_step": step, "val/acc": (number + step) / 10} for step in range(3)],
        )  # fmt: skip
    warehouse = connect(postgres_server)
    request = ExportRequest("ann", project)
    report = execute_export(plan_export(request, api, warehouse), api, warehouse)
    assert (report.runs, report.history_rows, report.unsound) == (3, 9, [])
    assert not plan_export(request, api, warehouse).runs

    best = "select run_id, max(val__acc) as best from history group by run_id"
    backfill = BackfillRequest("ann", project, sql=best)
    plan = plan_backfill(backfill, api, warehouse)
    assert len(execute_backfill(plan, api, warehouse).written) == 3
    assert [run.summary["best"] for run in api.runs(f"ann/{project}", order="+name")] == [
        0.2, 0.3, 0.4
    ]  # fmt: skip
    again = plan_backfill(backfill, api, warehouse)
    assert execute_backfill(again, api, warehouse).written == []
    reread = plan_export(request, api, warehouse)
    assert {run.run_id for run in reread.runs} == {"r0", "r1", "r2"}
