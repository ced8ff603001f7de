"""A project with runs to write to, and a warehouse that holds its export."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from wb_ops import Api, ExportRequest, Warehouse, connect, execute_export, plan_export
from wb_ops.devserver import DevServer

EXPORT = ExportRequest("ann", "trials")
# The export is made of one server, and tried on others: its runs must be the same ones.
TIMES = {"created_at": "2026-01-01T00:00:00", "heartbeat_at": "2026-01-01T00:01:00"}
THEIRS = '{"acc":0.5,"h":{"_type":"histogram","bins":[1e400,NaN]},"_wandb":{"runtime":3}}'


def seed(server: DevServer) -> None:
    """Sixty finished runs and a running one."""
    server.seed_runs(
        {
            "entity": "ann", "project": "trials", "run_id": f"r{index:02}", "summary": THEIRS,
            "config": {"lr": 0.1}, "tags": ["old"], "notes": "as it was",
            "history": [{"_step": step, "acc": (index + step) / 100} for step in range(3)],
            **TIMES,
        }
        for index in range(60)
    )  # fmt: skip
    live = [{"_step": 0, "acc": 1.0}]
    server.seed_run("ann", "trials", "live", state="running", history=live, **TIMES)


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The export, made once: each test gets a copy."""
    path = tmp_path_factory.mktemp("exported") / "warehouse.duckdb"
    with DevServer() as server:
        seed(server)
        with Api({"base_url": server.url}, api_key=server.api_key) as api:
            warehouse = connect(f"duckdb:///{path}")
            execute_export(plan_export(EXPORT, api, warehouse), api, warehouse)
    return path


@pytest.fixture
def project(server: DevServer, warehouse: Warehouse, exported: Path) -> DevServer:
    """Sixty finished runs and a running one, exported."""
    seed(server)
    shutil.copy(exported, warehouse.url.removeprefix("duckdb:///"))
    return server


@pytest.fixture
def text_of(api: Api) -> Any:
    """The raw JSON text of a field of a run, as the server has it."""

    def read(run_id: str, name: str = "summaryMetrics") -> Any:
        return api.source("ann/trials").fetch_node(run_id)[name]

    return read
