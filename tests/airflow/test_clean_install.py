"""The built wheel in an environment where nothing else is: first without Airflow, then with it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
ROOT = Path(__file__).parents[2]
# Taken before any test hides it: the installer's cache is there, which makes this quick.
HOME = os.environ.get("HOME", "/")

WITHOUT_AIRFLOW = """
import importlib.util, wb_ops
assert importlib.util.find_spec("airflow") is None
wb_ops.Api, wb_ops.plan_export, wb_ops.plan_backfill, wb_ops.connect
from wb_ops.airflow.provider_info import get_provider_info
print(wb_ops.__file__, get_provider_info()["package-name"])
"""

WITH_AIRFLOW = """
import json
from pathlib import Path
from jsonschema import validate
import airflow.settings
from airflow.providers_manager import ProvidersManager
from airflow.sdk.providers_manager_runtime import ProvidersManagerTaskRuntime

manager, runtime = ProvidersManager(), ProvidersManagerTaskRuntime()
info = manager.providers["wb-ops"].data
schemas = Path(airflow.settings.__file__).parent
validate(info, json.loads((schemas / "provider_info.schema.json").read_text()))
print(json.dumps({
    "version": manager.providers["wb-ops"].version,
    "hook": runtime.hooks["wandb"].hook_class_name,
    "links": sorted(one for one in manager.extra_links_class_names if "wb_ops" in one),
    "decorator": "wandb" in runtime.taskflow_decorators,
    "scheme": "wandb" in runtime.asset_uri_handlers,
    "config": sorted(info["config"]["wandb"]["options"]),
}))
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a fresh environment, and beside it the wheel."""
    folder = tmp_path_factory.mktemp("clean")
    build = "import sys; from hatchling.build import build_wheel; build_wheel(sys.argv[1])"
    run([sys.executable, "-c", build, str(folder)], folder, cwd=ROOT)
    uv(folder, "venv", "--python", sys.executable, str(folder / "env"))
    return folder / "env" / "bin" / "python"


def run(command: list[str], folder: Path, **options: Any) -> str:
    """The output of a command that sees no path and no setting of this process."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "AIRFLOW"))}
    environment |= {"AIRFLOW_HOME": str(folder / "airflow"), "HOME": HOME}
    given = {"cwd": folder, "env": environment, **options}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=500, check=False, **given
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def uv(folder: Path, *arguments: str) -> None:
    run([sys.executable, "-m", "uv", "--quiet", *arguments], folder)


def install(python: Path, extra: str = "") -> None:
    (wheel,) = python.parents[2].glob("*.whl")
    constraints = str(ROOT / "constraints.txt")
    given = ["--python", str(python), "--constraint", constraints, f"{wheel}{extra}"]
    uv(wheel.parent, "pip", "install", *given)


def test_the_wheel_works_without_airflow_and_registers_with_it(environment: Path) -> None:
    """Connection type, links, decorator, scheme, configuration; metadata that fits the schema."""
    folder = environment.parents[2]
    install(environment)
    file, name = run([str(environment), "-c", WITHOUT_AIRFLOW], folder).split()
    assert name == "wb-ops"
    assert Path(file).is_relative_to(environment.parents[1])
    install(environment, "[airflow]")
    found = json.loads(run([str(environment), "-c", WITH_AIRFLOW], folder).splitlines()[-1])
    assert found == {
        "version": "0.1.0",
        "hook": "wb_ops.airflow.hooks.wandb.WandbHook",
        "links": [
            "wb_ops.airflow.links.WandbLoadLink",
            "wb_ops.airflow.links.WandbProjectLink",
            "wb_ops.airflow.links.WandbRunLink",
        ],
        "decorator": True,
        "scheme": True,
        "config": ["max_throttles", "poll_interval"],
    }
