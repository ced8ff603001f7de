"""Pipelines into DuckDB and into a folder, with nothing of whoever runs the tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dlt
import pytest

from wb_ops import Api
from wb_ops.devserver import DevServer, Fault, Matcher, Responder
from wb_ops.dlt import wandb_source
from wb_ops.settings import Settings

Ask = Callable[[str], list[tuple[Any, ...]]]


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("RUNTIME__DLTHUB_TELEMETRY", "false")
    # Where Airflow is installed, dlt would start it up to ask for secrets: that takes a minute.
    monkeypatch.setenv("PROVIDERS__ENABLE_AIRFLOW_SECRETS", "false")
    monkeypatch.chdir(tmp_path)


@pytest.fixture(params=["duckdb", "filesystem"])
def destination(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    if request.param == "duckdb":
        return dlt.destinations.duckdb(str(tmp_path / "loaded.duckdb"))
    return dlt.destinations.filesystem(str(tmp_path / "loaded"))


@pytest.fixture
def pipeline(destination: Any, tmp_path: Path) -> dlt.Pipeline:
    return dlt.pipeline(
        "wandb", pipelines_dir=str(tmp_path / "work"), destination=destination, dataset_name="runs"
    )


@pytest.fixture
def load(pipeline: dlt.Pipeline, api: Api) -> Callable[..., Any]:
    def load(**options: Any) -> Any:
        return pipeline.run(wandb_source("ann", "trials", api=api, **options))

    return load


@pytest.fixture
def ask(pipeline: dlt.Pipeline) -> Ask:
    """Run SQL in the destination itself; `{history}` is that table."""

    def ask(sql: str) -> list[tuple[Any, ...]]:
        with pipeline.sql_client() as client:
            tables = pipeline.default_schema.tables
            names = {name: client.make_qualified_table_name(name) for name in tables}
            with client.execute_query(sql.format(**names)) as cursor:
                return [tuple(row) for row in cursor.fetchall()]

    return ask


@pytest.fixture
def downloads(server: DevServer) -> Callable[[], list[str]]:
    """What was asked of the server beside the listing, since its requests were cleared."""
    listing = {"FilterProbe", "Runs"}
    return lambda: [one for one in server.requests.operations() if one and one not in listing]


@pytest.fixture
def hasty(server: DevServer) -> Iterator[Api]:
    """An API that gives up at once, and a server whose next file is short."""
    server.faults.add(Fault(Matcher(origin="storage"), Responder.truncated(50)))
    once = Settings(api_key=server.api_key, base_url=server.url, max_attempts=1)
    with Api(settings=once) as api:
        yield api
