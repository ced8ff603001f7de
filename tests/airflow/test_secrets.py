"""The API key is in no log, XCom, rendered template or other file of Airflow."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import pytest

from wb_ops.errors import InvalidRequest

KEY = "canary0" * 6
# Not whole in this file, and other text in a URL.
PASSWORD = "canary/1@" * 3
FORMS = [
    KEY.encode(),
    base64.b64encode(f"api:{KEY}".encode()),
    PASSWORD.encode(),
    quote(PASSWORD, safe="").encode(),
]


def leaks(text: bytes) -> list[bytes]:
    return [form for form in FORMS if form in text]


def files_with_leaks(folder: Path) -> list[Path]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert any(path.name == "airflow.db" for path in files)
    return [path for path in files if leaks(path.read_bytes())]


@pytest.mark.parametrize(
    ("project", "key"),
    [("demo", KEY), ("missing", KEY), ("demo", KEY.replace("0", "1"))],
    ids=["succeeds", "fails", "refused"],
)
def test_a_task_leaks_nothing(
    run_task: Callable[..., Any],
    set_connection: Callable[..., None],
    warehouse: str,
    airflow_home: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    project: str,
    key: str,
) -> None:
    """Whether it succeeds, fails, or has a key that the server does not know."""
    from wb_ops.airflow import WandbExportOperator

    caplog.set_level("DEBUG")
    set_connection(password=key)
    run_task(WandbExportOperator, project=project, warehouse=warehouse)
    output = "".join(capfd.readouterr()) + caplog.text
    assert "wandb_project_url" in output or project in output
    assert key not in output
    assert leaks(output.encode()) == []
    assert files_with_leaks(airflow_home) == []


@pytest.fixture
def database(postgres_server: str, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Define the connection `pg` to a database of the server, with the canary as its password."""
    folder = parse_qs(urlsplit(postgres_server).query)["host"][0]

    def define(name: str) -> None:
        fields = {"conn_type": "postgres", "host": folder, "login": "postgres", "schema": name}
        monkeypatch.setenv("AIRFLOW_CONN_PG", json.dumps({**fields, "password": PASSWORD}))

    return define


@pytest.mark.parametrize(
    ("name", "state", "told"),
    [("postgres", "success", "12 history rows written"), ("nowhere", "failed", "nowhere")],
)
@pytest.mark.usefixtures("connection")
def test_a_warehouses_password_comes_from_a_connection_and_leaks_nowhere(
    run_task: Callable[..., Any],
    database: Callable[[str], None],
    airflow_home: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    name: str,
    state: str,
    told: str,
) -> None:
    """Neither as it is nor as a URL spells it; whether the export succeeds or is refused."""
    from airflow.sdk import Asset

    from wb_ops.airflow import WandbExportOperator

    caplog.set_level("DEBUG")
    database(name)
    outlets = [Asset("in_postgres")]
    task = run_task(WandbExportOperator, project="demo", warehouse="conn://pg", outlets=outlets)
    assert task.state == state
    output = "".join(capfd.readouterr()) + caplog.text
    assert told in output
    assert leaks(output.encode()) == []
    assert files_with_leaks(airflow_home) == []


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://ann:{PASSWORD}@db/wandb",
        f"postgresql://:{quote(PASSWORD, safe='')}@db/wandb",
        f"postgresql://db/wandb?user=ann&password={PASSWORD}",
        f"parquet+s3://id:{PASSWORD}@bucket/folder",
    ],
)
@pytest.mark.usefixtures("airflow_home")
def test_a_password_in_a_url_is_refused_while_the_dag_is_parsed(url: str) -> None:
    """With the remedy, and before Airflow stores anything."""
    import wb_ops.airflow as ours

    for name, arguments in {
        "WandbExportOperator": {},
        "WandbPlanExportOperator": {"staging": "/x"},
        "WandbCommitExportOperator": {"plan_uri": "/x"},
        "WandbPlanBackfillOperator": {"staging": "/x"},
        "WandbApplyBackfillOperator": {"plan": {}},
        "WandbBackfillSummaryOperator": {},
    }.items():
        operator = getattr(ours, name)
        for build in (operator, operator.partial):
            with pytest.raises(InvalidRequest, match="conn://") as raised:
                build(task_id="task", warehouse=url, **arguments)
            assert leaks(str(raised.value).encode()) == []


@pytest.mark.parametrize(
    "expand",
    [
        lambda partial, url: partial.expand(warehouse=["duckdb:///x.duckdb", url]),
        lambda partial, url: partial.expand(warehouse={"to": url}),
        lambda partial, url: partial.expand_kwargs([{"warehouse": url}]),
    ],
    ids=["expand", "expand a dict", "expand_kwargs"],
)
@pytest.mark.usefixtures("airflow_home")
def test_a_password_that_is_mapped_over_is_refused_while_the_dag_is_parsed(
    expand: Callable[..., Any],
) -> None:
    """Airflow stores what a task is mapped over with the Dag."""
    from wb_ops.airflow import WandbBackfillSummaryOperator, WandbExportOperator

    for operator in (WandbExportOperator, WandbBackfillSummaryOperator):
        partial = operator.partial(task_id="task", project="demo")
        with pytest.raises(InvalidRequest, match="conn://") as raised:
            expand(partial, f"postgresql://ann:{PASSWORD}@db/wandb")
        assert leaks(str(raised.value).encode()) == []
        mapped = expand(partial, "postgresql://ann@db/wandb")
        assert mapped.operator_class is operator


@pytest.mark.usefixtures("airflow_home")
def test_a_password_in_default_args_is_refused_for_mapped_tasks_too() -> None:
    """They are never built while the Dag file is parsed."""
    from airflow.sdk import DAG

    from wb_ops.airflow import WandbExportOperator

    url = f"postgresql://ann:{PASSWORD}@db/wandb"
    with DAG("defaults", schedule=None, default_args={"warehouse": url}) as dag:
        partial = WandbExportOperator.partial(task_id="task")
        with pytest.raises(InvalidRequest, match="conn://"):
            partial.expand(project=["demo"])
        with pytest.raises(InvalidRequest, match="conn://"):
            partial.expand_kwargs([{"project": "demo"}])
        dag.default_args["warehouse"] = "postgresql://ann@db/wandb"
        assert partial.expand(project=["demo"]).operator_class is WandbExportOperator


@pytest.mark.usefixtures("connection")
def test_a_password_that_a_template_makes_is_masked_and_refused(
    run_task: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    airflow_home: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Airflow stores rendered templates before a task runs."""
    from wb_ops.airflow import WandbExportOperator

    monkeypatch.setenv("AIRFLOW_VAR_TARGET", f"postgresql://ann:{PASSWORD}@db/wandb")
    task = run_task(WandbExportOperator, project="demo", warehouse="{{ var.value.target }}")
    assert (task.state, task.try_number) == ("failed", 1)
    assert leaks("".join(capfd.readouterr()).encode()) == []
    assert files_with_leaks(airflow_home) == []


@pytest.mark.parametrize(
    ("fields", "url"),
    [
        ({"host": "db", "schema": "w"}, "postgresql://db/w"),
        ({"host": "db", "port": 5433, "login": "a@b", "password": "p/w"}, "postgresql://a%40b:p%2Fw@db:5433/"),
        ({"host": "::1", "extra": {"sslmode": "require", "cursor": "x"}}, "postgresql://[::1]/?sslmode=require"),
        ({"host": "db", "extra": {"history_columns": 9, "options": "-c a=b"}}, "postgresql://db/?options=-c%20a%3Db&history_columns=9"),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("airflow_home")
def test_a_connection_is_a_url(fields: dict[str, Any], url: str) -> None:
    """With what libpq and our own options take of its extra."""
    from airflow.sdk import Connection

    from wb_ops.airflow.warehouses import _url_of

    extra = json.dumps(fields.pop("extra", {}))
    assert _url_of(Connection(conn_id="pg", conn_type="postgres", extra=extra, **fields)) == url


@pytest.mark.usefixtures("airflow_home")
def test_another_kind_of_connection_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Naming what it is and what it should be."""
    from wb_ops.airflow.warehouses import open_warehouse

    monkeypatch.setenv("AIRFLOW_CONN_OTHER", json.dumps({"conn_type": "mysql", "host": "db"}))
    with pytest.raises(InvalidRequest, match="type 'mysql': give one of the type Postgres"):
        open_warehouse("conn://other")


@pytest.mark.usefixtures("airflow_home")
def test_a_key_from_the_environment_is_masked_too(
    set_connection: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Airflow masks what a connection holds; what the hook found elsewhere it has to be told."""
    from airflow.sdk.log import redact

    from wb_ops.airflow import WandbHook

    found = "environ" * 6
    set_connection(password=None)
    monkeypatch.setenv("WANDB_API_KEY", found)
    assert redact(f"the key is {found}") == f"the key is {found}"
    WandbHook().get_conn().close()
    assert redact(f"the key is {found}") == "the key is ***"
