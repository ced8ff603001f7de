"""Lakes in a local folder and in a bucket of a local S3 server."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1] / "contract")]

from batches import Batches  # noqa: E402 - importlib mode puts no folder of tests on the path

from wb_ops import Warehouse, connect  # noqa: E402


@pytest.fixture
def make(tmp_path: Path) -> Batches:
    folder = tmp_path / "staged"
    folder.mkdir()
    return Batches(folder)


@pytest.fixture
def local_url(tmp_path: Path, kind: str) -> str:
    return f"{kind}:///{tmp_path / 'lake'}"


@pytest.fixture(params=["parquet", "delta"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["local", "s3"])
def lake(request: pytest.FixtureRequest, kind: str) -> Warehouse:
    if request.param == "local":
        return connect(request.getfixturevalue("local_url"))
    return connect(f"{kind}+s3://{request.getfixturevalue('bucket')}/some/lake")


@pytest.fixture
def local_lake(local_url: str) -> Warehouse:
    return connect(local_url)
