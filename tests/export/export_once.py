"""One export in a process of its own, in many small commits, to be killed at any moment."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from wb_ops import (
    Api,
    ExportRequest,
    Warehouse,
    commit_plan,
    connect,
    execute_export,
    execute_shard,
    load_plan,
    plan_export,
)
from wb_ops.settings import Settings

REQUEST = ExportRequest(
    "ann", "trials", max_cells=20_000, max_workers=4,
    tables=("runs", "history", "system_metrics"),
)  # fmt: skip


def export_in_shards(api: Api, warehouse: Warehouse, folder: Path) -> None:
    """As three tasks of an orchestrator do; the plan that a killed one made is carried out."""
    told = folder / "plan_uri"
    if not told.exists():
        plan = plan_export(replace(REQUEST, mode="full"), api, warehouse, str(folder / "plans"))
        assert plan.uri is not None
        (folder / "new").write_text(plan.uri)
        (folder / "new").rename(told)
    uri = told.read_text()
    for shard in load_plan(uri).shards(3):
        execute_shard(uri, shard, api)
    commit_plan(uri, api, warehouse)
    told.unlink()


if __name__ == "__main__":
    url, key, warehouse_url, way, folder = sys.argv[1:]
    warehouse = connect(warehouse_url)
    print("ready", flush=True)
    sys.stdin.readline()  # so that several begin together
    # The server has faults: they are tried again, as a patient user would.
    settings = Settings(api_key=key, base_url=url, max_attempts=12)
    with Api(settings=settings) as api:
        if way == "shards":
            export_in_shards(api, warehouse, Path(folder))
        else:
            request = replace(REQUEST, mode=way)
            execute_export(plan_export(request, api, warehouse), api, warehouse)
