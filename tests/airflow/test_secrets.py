"""The API key is in no log, XCom, rendered template or other file of Airflow."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

KEY = "canary0" * 6
FORMS = [KEY.encode(), base64.b64encode(f"api:{KEY}".encode())]


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
