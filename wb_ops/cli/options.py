"""Texts of options that several commands share -> values."""

from __future__ import annotations

import json
from typing import Any

from wb_ops.client.paths import project_path_parts
from wb_ops.errors import InvalidRequest, WarehouseRefused
from wb_ops.warehouse import Warehouse, connect


def parse_filters(text: str | None) -> dict[str, Any]:
    """Read `--filters`; None is no filter.

    Raises:
        InvalidRequest: it is not a JSON object (retry: never).
    """
    try:
        filters = json.loads(text) if text else {}
    except ValueError as exc:
        raise InvalidRequest(f"--filters {text!r} is not JSON: {exc}.") from exc
    if not isinstance(filters, dict):
        raise InvalidRequest(f'--filters {text!r} is no JSON object, such as {{"state": "x"}}.')
    return filters


def project_of(path: str) -> tuple[str, str]:
    """Read a project's path or page URL: entity and project.

    Raises:
        InvalidRequest: it does not name both (retry: never).
    """
    parts = project_path_parts(path)
    if len(parts) != 2 or not all(parts):
        raise InvalidRequest(f"{path!r} is no project: give entity/project.")
    return parts[0], parts[1]


def warehouse_of(option: str, url: str) -> Warehouse:
    """Read the URL of a warehouse; opens nothing.

    Raises:
        InvalidRequest: it is none (retry: never).
        WarehouseRefused: its driver is not installed (retry: never).
    """
    try:
        return connect(url)
    except WarehouseRefused as error:
        if isinstance(error.exc, ImportError):
            raise
        # What `connect` quotes holds no secret; the URL itself may.
        raise InvalidRequest(f"{option}: {error}", error) from error
