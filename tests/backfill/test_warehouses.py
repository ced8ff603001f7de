"""Every warehouse serves a backfill: SQL on it, its journal, an undo, a resume, a list."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from wb_ops import (
    Api,
    BackfillRequest,
    ExportRequest,
    PermissionDenied,
    Warehouse,
    connect,
    execute_backfill,
    execute_export,
    plan_backfill,
    plan_export,
)
from wb_ops.backfill import list_backfills
from wb_ops.devserver import DevServer, Fault, Matcher, Responder

DATASET = "ann__trials"
OLD = '{"acc": 0.50, "h": {"bins": [1e400, NaN]}}'
BEST = BackfillRequest(
    "ann", "trials",
    sql="select run_id, max(acc) as best, 'NaN' as word from history group by run_id",
)  # fmt: skip


@pytest.fixture(params=["duckdb", "postgres", "parquet", "delta"])
def warehouse(request: pytest.FixtureRequest, tmp_path: Path) -> Warehouse:
    if request.param == "postgres":
        return connect(str(request.getfixturevalue("postgres_server")))
    return connect(f"{request.param}:///{tmp_path / 'warehouse.duckdb'}")


def write(api: Api, warehouse: Warehouse, request: BackfillRequest) -> Any:
    return execute_backfill(plan_backfill(request, api, warehouse), api, warehouse)


def test_a_backfill_is_written_refused_resumed_undone_and_listed(
    api: Api, warehouse: Warehouse, server: DevServer, text_of: Callable[..., Any]
):
    history = [{"_step": step, "acc": step / 4} for step in range(3)]
    for index in range(30):
        server.seed_run("ann", "trials", f"r{index:02}", summary=OLD, history=history)
    execute_export(plan_export(ExportRequest("ann", "trials"), api, warehouse), api, warehouse)
    plan = plan_backfill(BEST, api, warehouse)
    assert plan.counts == {"set": 60}
    refusal = Fault(Matcher(operation="UpsertBucket", nth=2), Responder.error(403), times=None)
    server.faults.add(refusal)
    with pytest.raises(PermissionDenied):
        execute_backfill(plan, api, warehouse)
    server.faults.clear()
    (record,) = list_backfills(warehouse, DATASET)
    assert (record.is_finished, sum(record.counts.values())) == (False, 60)

    write(api, warehouse, BackfillRequest("ann", "trials", resume=plan.backfill_id))
    assert list_backfills(warehouse, DATASET)[0].counts == {"written": 60}
    assert json.loads(text_of("r07"))["best"] == 0.5
    assert plan_backfill(BEST, api, warehouse).to_set == ()
    joined = warehouse.query(
        "select count(*) as n from _wb_backfills join runs using (run_id) where event = 'written'",
        DATASET,
    )
    assert joined.to_pylist() == [{"n": 60}]

    back = write(api, warehouse, BackfillRequest("ann", "trials", undo=plan.backfill_id))
    assert len(back.written) == 60
    assert {text_of(f"r{index:02}") for index in range(30)} == {OLD}
    newest, oldest = list_backfills(warehouse, DATASET)
    assert (newest.backfill_id, oldest.backfill_id) == (back.backfill_id, plan.backfill_id)
