"""From a URL to a warehouse."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from wb_ops.errors import WarehouseRefused
from wb_ops.warehouse.base import Warehouse

LOCK_TIMEOUT_S = 120.0


def connect(url: str, *, lock_timeout_s: float = LOCK_TIMEOUT_S) -> Warehouse:
    """Return the warehouse behind `url`; opens nothing yet.

    `duckdb:///x.duckdb` is a file in the working directory, `duckdb:////data/x.duckdb` one at
    /data/x.duckdb (an absolute path brings its own slash).

    Raises:
        WarehouseRefused: no such kind of warehouse, or its driver is not installed
            (retry: never).
    """
    parts = urlsplit(url)
    if parts.scheme != "duckdb":
        raise WarehouseRefused(
            f"No warehouse for {parts.scheme or url}: use duckdb:///FILE (relative) or "
            "duckdb:////ABSOLUTE/FILE."
        )
    if parts.netloc or not parts.path.strip("/"):
        raise WarehouseRefused(f"{url} names no file: use duckdb:///FILE, with three slashes.")
    try:
        from wb_ops.warehouse.duckdb import DuckDBWarehouse
    except ModuleNotFoundError as exc:
        raise WarehouseRefused(
            "DuckDB is not installed: pip install 'wb-ops[duckdb]'.", exc
        ) from exc
    return DuckDBWarehouse(Path(parts.path[1:]), lock_timeout_s=lock_timeout_s)
