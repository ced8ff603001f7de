"""An edit of a run that ended long ago arrives by the next incremental export, everywhere."""

from __future__ import annotations

import json
from typing import Any

from loss_rows import rows

from wb_ops import Api, ExportRequest, Warehouse, connect, execute_export, plan_export
from wb_ops.devserver import DevServer

REQUEST = ExportRequest("ann", "trials")
OLD = "2026-01-01T00:00:00"
EDITS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"notes": "the seed was wrong"}, {"notes": "the seed was wrong"}),
    ({"display_name": "baseline"}, {"display_name": "baseline"}),
    ({"tags": ["late"]}, {"tags": ["late"]}),
    ({"config": {"lr": 0.2}}, {"config": {"lr": 0.2}}),
    ({"summary": {"best": 3}}, {"summary": {"best": 3}}),
    ({"notes": None}, {"notes": None}),
]


def found(warehouse: Warehouse) -> dict[str, dict[str, Any]]:
    """The runs by their ids, and their documents parsed."""
    runs = warehouse.read_tables(REQUEST.dataset_name, ["runs"])["runs"].to_pylist()
    parsed = ({name: json.loads(row[name]) for name in ("config", "summary")} for row in runs)
    return {row["run_id"]: {**row, **own} for row, own in zip(runs, parsed, strict=True)}


def test_each_edit_arrives_by_itself_and_alone(server: DevServer, api: Api, url: str):
    warehouse = connect(url)
    for run_id in ("r1", "r2", "r3"):
        server.seed_run(
            *("ann", "trials", run_id), history=rows(2), notes="first", created_at=OLD,
            heartbeat_at=OLD, updated_at=OLD,
        )  # fmt: skip
    execute_export(plan_export(REQUEST, api, warehouse), api, warehouse)
    before = found(warehouse)
    for fields, columns in EDITS:
        server.edit_run("ann", "trials", "r2", **fields)
        plan = plan_export(REQUEST, api, warehouse)
        assert (plan.mode, [run.reason for run in plan.runs]) == ("incremental", ["edited"])
        assert execute_export(plan, api, warehouse).history_rows == 0
        after = found(warehouse)
        changed = {
            (run_id, name): value
            for run_id, row in after.items()
            for name, value in row.items()
            if value != before[run_id][name] and name not in ("content_hash", "_load_id")
        }
        assert changed == {("r2", name): value for name, value in columns.items()}
        before = after
