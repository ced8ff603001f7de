"""Every test here runs on every destination; a new one is a class and a line in DESTINATIONS."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from batches import Batches  # noqa: E402 - importlib mode puts no folder of tests on the path
from destinations import (  # noqa: E402
    DeltaBucket,
    DeltaDestination,
    Destination,
    DuckDBDestination,
    ParquetBucket,
    ParquetDestination,
    PostgresDestination,
)

from wb_ops import Warehouse  # noqa: E402

DESTINATIONS = {
    "duckdb": DuckDBDestination,
    "postgres": PostgresDestination,
    "parquet": ParquetDestination,
    "delta": DeltaDestination,
}
if os.environ.get("WB_OPS_BUCKETS"):
    # Not for every change: each file is a request, and what a kill leaves runs out in a minute.
    DESTINATIONS |= {"parquet+s3": ParquetBucket, "delta+s3": DeltaBucket}


@pytest.fixture(params=DESTINATIONS)
def destination(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Destination]:
    with DESTINATIONS[request.param].opened(tmp_path, request) as destination:
        yield destination


@pytest.fixture
def warehouse(destination: Destination) -> Warehouse:
    return destination.connect()


@pytest.fixture
def make(tmp_path: Path) -> Batches:
    folder = tmp_path / "staged"
    folder.mkdir()
    return Batches(folder)
