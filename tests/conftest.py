"""What all tests share: nobody's credentials, a dev server, an Api and a warehouse."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, settings

from wb_ops import Api, Warehouse, connect
from wb_ops.client.source import RunSource
from wb_ops.devserver import DevServer

# Both checks measure time: the first draw of a fresh checkout builds a table of all characters,
# which takes seconds, and a busy machine misses any deadline.
settings.register_profile("wb_ops", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("wb_ops")

CORPUS = Path(__file__).resolve().parents[1].parent / "shared" / "data" / "corpus"
ENTITY = "ann"
PROJECT = "trials"


@pytest.fixture(autouse=True)
def _own_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory):
    """No test sees the key, the netrc or the settings of whoever runs it."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("NETRC", str(home / "no-netrc"))


@pytest.fixture
def server(wandb_server: DevServer) -> DevServer:
    return wandb_server


@pytest.fixture
def api(server: DevServer) -> Iterator[Api]:
    with Api({"base_url": server.url}, api_key=server.api_key) as api:
        yield api


@pytest.fixture
def source(api: Api) -> RunSource:
    return api.source(f"{ENTITY}/{PROJECT}")


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    return connect(f"duckdb:///{tmp_path / 'warehouse.duckdb'}", lock_timeout_s=10)


@pytest.fixture(scope="session")
def corpus() -> Path:
    """Run data that people published, where it is at hand."""
    if not CORPUS.is_dir():
        pytest.skip("the corpus of real runs is not part of the repository")
    return CORPUS


@pytest.fixture(scope="session")
def corpus_runs(corpus: Path) -> list[dict[str, object]]:
    with pa.input_stream(str(corpus / "runs.jsonl.zst"), compression="zstd") as stream:
        return [json.loads(line) for line in stream.read().decode().splitlines()]
