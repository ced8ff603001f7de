"""Lakes in a local folder and in a bucket of a local S3 server."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import fsspec
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


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """In a process of its own: deltalake's restore waits for its answers and holds the GIL."""
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    lines = iter(server.stderr.readline, "")
    url = next(found[0] for line in lines if (found := re.search(r"http://127[.:0-9]+", line)))
    # Nobody may wait because the pipe is full.
    threading.Thread(target=server.stderr.read, daemon=True).start()
    yield url
    server.kill()
    server.wait(10)


@pytest.fixture
def bucket(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    environ = {
        "AWS_ENDPOINT_URL": s3_server,
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "a-key-id",
        "AWS_SECRET_ACCESS_KEY": "a-secret-key",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    name = f"bucket-{uuid.uuid4().hex[:8]}"
    fsspec.filesystem("s3", skip_instance_cache=True).mkdir(name)
    return name


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
