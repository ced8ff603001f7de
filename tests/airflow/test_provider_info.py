"""What Airflow learns from the entry point."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest

import wb_ops.airflow
from wb_ops.airflow.provider_info import get_provider_info


def schema(name: str) -> dict[str, Any]:
    import airflow.settings

    text = (Path(airflow.settings.__file__).parent / name).read_text()
    found: dict[str, Any] = json.loads(text)
    return found


def listed_modules() -> list[str]:
    info = get_provider_info()
    kinds = ("hooks", "operators", "sensors", "triggers")
    return [name for kind in kinds for group in info[kind] for name in group["python-modules"]]


def dotted_paths() -> Iterator[str]:
    info = get_provider_info()
    yield from listed_modules()
    yield from info["extra-links"]
    yield from (one["hook-class-name"] for one in info["connection-types"])
    yield from (one["class-name"] for one in info["task-decorators"])
    yield from (one["handler"] for one in info["asset-uris"])


def test_the_entry_point_is_it() -> None:
    """Airflow finds providers by this entry point alone."""
    (found,) = entry_points(group="apache_airflow_provider", name="provider_info").select(
        module="wb_ops.airflow.provider_info"
    )
    assert found.load() is get_provider_info


@pytest.mark.usefixtures("airflow_home")
def test_it_fits_airflows_schemas() -> None:
    """The runtime's schema, and that of provider.yaml, which alone knows the form's fields."""
    from jsonschema import validate

    info = get_provider_info()
    validate(info, schema("provider_info.schema.json"))
    form = schema("provider.yaml.schema.json")["properties"]["connection-types"]
    validate(info["connection-types"], form)


def test_the_form_has_the_fields_that_a_connection_needs() -> None:
    """The port too: without one in the database Airflow 3.3 refuses to test a saved connection."""
    (form,) = get_provider_info()["connection-types"]
    assert form["ui-field-behaviour"]["hidden-fields"] == ["schema", "login"]


@pytest.mark.usefixtures("airflow_home")
def test_airflow_registers_it() -> None:
    """The provider manager has the package, its connection type and the form."""
    from airflow.providers_manager import ProvidersManager

    manager = ProvidersManager()
    assert manager.providers["wb-ops"].data["connection-types"]
    assert set(get_provider_info()["extra-links"]) <= set(manager.extra_links_class_names)


@pytest.mark.usefixtures("airflow_home")
def test_every_module_with_operators_is_listed() -> None:
    """What is written and not listed does not show up in Airflow."""
    listed = set(dotted_paths())
    folder = Path(wb_ops.airflow.__file__).parent
    for kind, base in (("operators", "BaseOperator"), ("sensors", "BaseSensorOperator")):
        for path in (folder / kind).glob("[a-z]*.py"):
            module = import_module(f"wb_ops.airflow.{kind}.{path.stem}")
            ours = [one for one in vars(module).values() if is_public_task(one, module, base)]
            assert not ours or module.__name__ in listed or path.stem == "base"


def is_public_task(value: Any, module: Any, base: str) -> bool:
    from airflow import sdk

    own = isinstance(value, type) and value.__module__ == module.__name__
    return own and value.__name__.startswith("Wandb") and issubclass(value, getattr(sdk, base))


@pytest.mark.usefixtures("airflow_home")
def test_the_decorator_and_the_scheme_are_registered() -> None:
    """In task processes, by the manager that the task SDK asks."""
    from airflow.sdk.providers_manager_runtime import ProvidersManagerTaskRuntime

    manager = ProvidersManagerTaskRuntime()
    assert "wandb" in manager.taskflow_decorators
    assert "wandb" in manager.asset_uri_handlers


@pytest.mark.usefixtures("airflow_home")
def test_the_config_section_has_the_defaults_that_the_code_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`airflow config list` shows them, and an environment variable changes them."""
    from airflow.configuration import conf

    from wb_ops.airflow.operators.deferral import MAX_THROTTLES, default_max_throttles
    from wb_ops.airflow.sensors.run import POLL_INTERVAL_S, default_poll_interval_s

    options = get_provider_info()["config"]["wandb"]["options"]
    assert float(options["poll_interval"]["default"]) == POLL_INTERVAL_S
    assert int(options["max_throttles"]["default"]) == MAX_THROTTLES
    assert conf.getint("wandb", "max_throttles") == default_max_throttles() == MAX_THROTTLES
    monkeypatch.setenv("AIRFLOW__WANDB__POLL_INTERVAL", "7.5")
    assert default_poll_interval_s() == 7.5


@pytest.mark.usefixtures("airflow_home")
@pytest.mark.parametrize("path", sorted(set(dotted_paths())))
def test_every_path_imports(path: str) -> None:
    """Only what exists is listed."""
    from airflow.sdk.module_loading import import_string

    is_module = path in listed_modules()
    assert import_module(path) if is_module else callable(import_string(path))


@pytest.mark.usefixtures("airflow_home")
@pytest.mark.parametrize("name", wb_ops.airflow.__all__)
def test_every_public_name_loads(name: str) -> None:
    """The package's names are lazy."""
    assert name in dir(wb_ops.airflow)
    assert getattr(wb_ops.airflow, name).__name__ == name


def test_an_unknown_name_is_an_attribute_error() -> None:
    """Lazy loading does not hide a typing mistake."""
    with pytest.raises(AttributeError, match="no attribute 'WandbSensor'"):
        _ = wb_ops.airflow.WandbSensor


NO_AIRFLOW = """
import sys
sys.modules["airflow"] = None
import wb_ops
wb_ops.Api, wb_ops.plan_export, wb_ops.plan_backfill, wb_ops.connect
from wb_ops.airflow.provider_info import get_provider_info
assert get_provider_info()["package-name"] == "wb-ops"
"""


def test_the_core_works_without_airflow() -> None:
    """Airflow is an extra, and reading the provider's metadata does not import it either."""
    done = subprocess.run(
        [sys.executable, "-c", NO_AIRFLOW],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.usefixtures("airflow_home")
def test_the_connection_form_is_ours() -> None:
    """The web server shows our labels, without importing the hook."""
    from airflow.api_fastapi.core_api.services.ui.connections import HookMetaService

    (form,) = [one for one in HookMetaService.hook_meta_data() if one.connection_type == "wandb"]
    shown = form.model_dump()
    assert shown["standard_fields"]["password"]["title"] == "API key"
    assert shown["standard_fields"]["host"]["title"] == "API base URL"
    assert set(shown["extra_fields"]) == {"entity", "project", "timeout", "max_wait_s"}
