"""The real `dg` finds, scaffolds and checks the component."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

COMPONENT = "wb_ops.dagster.WandbProjectComponent"
ROOT = Path(__file__).parents[2]
PROJECT = """
[project]
name = "loc"
version = "0.1"
[tool.dg]
directory_type = "project"
[tool.dg.project]
root_module = "loc"
code_location_target_module = "loc.definitions"
"""
DEFINITIONS = """
from pathlib import Path
import dagster as dg

@dg.definitions
def defs():
    return dg.load_from_defs_folder(path_within_project=Path(__file__).parent)
"""
# The entry point of the installed package, for a checkout that was installed before it had one.
ENTRY_POINT = {
    "METADATA": "Metadata-Version: 2.1\nName: wb-ops-entry-point\nVersion: 0.1\n",
    "entry_points.txt": "[dagster_dg_cli.registry_modules]\nwb_ops = wb_ops.dagster\n",
}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    files = {
        "project/pyproject.toml": PROJECT,
        "project/src/loc/definitions.py": DEFINITIONS,
        "project/src/loc/__init__.py": "",
        "project/src/loc/defs/__init__.py": "",
        **{f"entry/wb_ops_entry_point-0.1.dist-info/{name}": text
           for name, text in ENTRY_POINT.items()},
    }  # fmt: skip
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "project"


@pytest.fixture
def dg(project: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    scripts = Path(sys.executable).parent
    paths = [project.parent / "entry", project / "src", ROOT]
    env = {
        "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}",
        "VIRTUAL_ENV": str(scripts.parent),
        "PYTHONPATH": os.pathsep.join(map(str, paths)),
        "HOME": str(project.parent),
        "COLUMNS": "200",
        "DAGSTER_DISABLE_TELEMETRY": "true",
        "WB_OPS_WAREHOUSE": "duckdb:////data/never-opened.duckdb",
    }

    def run(*args: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(scripts / "dg"), *args],
            cwd=project, env=env, capture_output=True, text=True, timeout=100, check=False,
        )  # fmt: skip

    return run


def test_the_component_is_found_scaffolded_and_checked(dg, project: Path):
    assert COMPONENT in dg("list", "components", "--package", "wb_ops").stdout
    place = ("--entity", "acme", "--project", "nano-gpt", "--best", "val/acc")
    made = dg("scaffold", "defs", COMPONENT, "wb", *place)
    assert made.returncode == 0, made.stderr
    text = (project / "src/loc/defs/wb/defs.yaml").read_text()
    assert "warehouse: '{{ env.WB_OPS_WAREHOUSE }}'" in text
    for what in ("yaml", "defs"):
        checked = dg("check", what)
        assert checked.returncode == 0, checked.stdout + checked.stderr
    listed = dg("list", "defs", "--json").stdout
    assert "acme__nano_gpt/history" in listed
    assert "acme__nano_gpt/best_val_acc" in listed


def test_a_typing_error_is_shown_with_its_line(dg, project: Path):
    path = project / "src/loc/defs/wb/defs.yaml"
    path.parent.mkdir()
    path.write_text(f"type: {COMPONENT}\nattributes:\n  entity: acme\n  projct: nano-gpt\n")
    checked = dg("check", "yaml")
    assert checked.returncode != 0
    assert "'projct' was unexpected" in checked.stdout + checked.stderr
    assert "defs.yaml:4" in checked.stdout + checked.stderr
