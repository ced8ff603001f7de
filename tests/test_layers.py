"""A module imports only from layers to its left; importing the package stays light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "wb_ops"

WRAPPERS = {"cli", "dagster", "airflow"}
ALLOWED = {
    "errors": set(),
    "settings": {"errors"},
    "tables": {"errors", "settings"},
    "client": {"errors", "settings", "tables"},
    "filters": {"client"},
    "warehouse": {"errors", "settings", "tables", "client"},
    "export": {"errors", "settings", "tables", "client", "warehouse"},
    "backfill": {"errors", "settings", "tables", "client", "warehouse"},
    "cli": {"errors", "settings", "tables", "client", "warehouse", "export", "backfill",
            "devserver"},
    "dagster": {"errors", "settings", "tables", "client", "warehouse", "export", "backfill"},
    "airflow": {"errors", "settings", "tables", "client", "warehouse", "export", "backfill"},
    "dlt": {"errors", "settings", "tables", "client", "warehouse", "export"},
    "devserver": set(),
}  # fmt: skip
FRAMEWORKS = {"dagster", "airflow", "click", "rich", "starlette", "uvicorn", "graphql", "wandb",
              "dlt"}  # fmt: skip
OWN_FRAMEWORKS = {
    "cli": {"click", "rich"},
    "dagster": {"dagster"},
    "airflow": {"airflow"},
    "dlt": {"dlt"},
    "devserver": {"starlette", "uvicorn", "graphql"},
}


def layer_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def places(paths: list[Path]) -> list[str]:
    return [path.relative_to(PACKAGE).as_posix() for path in paths]


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_only_from_the_left(path: Path):
    layer = layer_of(path)
    ours = {name.split(".")[1] for name in imported(path) if name.startswith("wb_ops.")}
    # `from wb_ops import Api` counts as the layer that the name comes from.
    ours &= set(ALLOWED)
    assert ours <= ALLOWED[layer] | {layer}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_frameworks_stay_in_their_layer(path: Path):
    used = {name.split(".")[0] for name in imported(path)} & FRAMEWORKS
    assert used <= OWN_FRAMEWORKS.get(layer_of(path), set())


def test_every_layer_is_in_the_rule():
    assert {layer_of(path) for path in MODULES} == set(ALLOWED)


def test_importing_the_package_loads_nothing_heavy():
    heavy = ["pandas", "pyarrow", "numpy", "duckdb", *sorted(FRAMEWORKS)]
    code = f"import sys, wb_ops; print([name for name in {heavy} if name in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_there_is_one_retry_loop_and_the_transport_has_it():
    users = [path for path in MODULES if any("tenacity" in name for name in imported(path))]
    assert places(users) == ["client/retries.py"]
    users = [path for path in MODULES if any(".retries.Retries" in one for one in imported(path))]
    assert places(users) == ["client/transport.py"]
