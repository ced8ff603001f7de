"""Runs on the dev server, and short forms for exporting them and asking the warehouse."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from loss_rows import rows

from wb_ops import (
    Api,
    ExportPlan,
    ExportReport,
    ExportRequest,
    Warehouse,
    execute_export,
    plan_export,
)
from wb_ops.devserver import DevServer
from wb_ops.settings import Settings

REQUEST = ExportRequest("ann", "trials")


@pytest.fixture
def export(api: Api, warehouse: Warehouse) -> Callable[..., tuple[ExportPlan, ExportReport]]:
    def run(**changes: Any) -> tuple[ExportPlan, ExportReport]:
        plan = plan_export(replace(REQUEST, **changes), api, warehouse)
        return plan, execute_export(plan, api, warehouse)

    return run


@pytest.fixture
def ask(warehouse: Warehouse) -> Callable[[str], list[dict[str, Any]]]:
    return lambda sql: warehouse.query(sql, REQUEST.dataset_name).to_pylist()


@pytest.fixture
def project(server: DevServer) -> DevServer:
    """Six runs of one to six rows, created a day apart."""
    server.seed_runs(
        {
            "entity": "ann", "project": "trials", "run_id": f"r{index}", "history": rows(index + 1),
            "created_at": f"2026-01-0{index + 1}T00:00:00", "config": {"lr": index / 10},
            "events": [{"_timestamp": 1.0 * tick, "system.cpu": tick} for tick in range(3)],
        }
        for index in range(6)
    )  # fmt: skip
    return server


@pytest.fixture
def impatient(server: DevServer) -> Api:
    settings = Settings(api_key=server.api_key, base_url=server.url, max_attempts=1)
    return Api(settings=replace(settings, max_wait_s=1.0))


@pytest.fixture(params=["path", "memory"])
def staging(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A local folder, and one that only fsspec knows."""
    return str(tmp_path / "plans") if request.param == "path" else f"memory://{tmp_path.name}/plans"


@pytest.fixture(params=["duckdb", "postgres", "parquet", "delta"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A new warehouse of each kind."""
    if request.param != "postgres":
        return f"{request.param}:///{tmp_path / 'warehouse'}"
    create: Callable[[], str] = request.getfixturevalue("new_database")
    return create()
