"""Runs on the dev server, and short forms for exporting them and asking the warehouse."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from wb_ops import (
    Api,
    ExportPlan,
    ExportReport,
    ExportRequest,
    Warehouse,
    execute_export,
    plan_export,
)

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
