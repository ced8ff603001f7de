"""The wheel that is built, not the tree: what Airflow finds there."""

from __future__ import annotations

import configparser
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from wb_ops.airflow.provider_info import get_provider_info

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The built wheel, opened."""
    pytest.importorskip("hatchling", reason="the build backend is not installed")
    folder = tmp_path_factory.mktemp("wheel")
    build = (
        "import sys; from hatchling.build import build_wheel; "
        "print(build_wheel(sys.argv[1]), end='')"
    )
    done = subprocess.run(
        [sys.executable, "-c", build, str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (path,) = folder.glob("*.whl")
    return zipfile.ZipFile(path)


def test_the_entry_point_is_in_it(wheel: zipfile.ZipFile) -> None:
    """Without it nothing registers, and nothing complains."""
    (name,) = [name for name in wheel.namelist() if name.endswith("entry_points.txt")]
    points = configparser.ConfigParser()
    points.read_string(wheel.read(name).decode())
    assert points["apache_airflow_provider"]["provider_info"] == (
        "wb_ops.airflow.provider_info:get_provider_info"
    )


def test_every_module_of_the_provider_is_in_it(wheel: zipfile.ZipFile) -> None:
    """The packages of the tree, and what the provider's metadata names."""
    held = set(wheel.namelist())
    tree = {str(path.relative_to(ROOT)) for path in (ROOT / "wb_ops/airflow").rglob("*.py")}
    assert tree <= held
    info = get_provider_info()
    for kind in ("hooks", "operators", "sensors", "triggers"):
        for module in info[kind][0]["python-modules"]:
            assert f"{module.replace('.', '/')}.py" in held
    assert "wb_ops/py.typed" in held


def test_the_provider_is_read_from_it_without_airflow(
    wheel: zipfile.ZipFile, tmp_path: Path
) -> None:
    """As Airflow reads it, before its configuration is ready."""
    wheel.extractall(tmp_path)
    script = (
        "import sys; sys.modules['airflow'] = None; "
        "from wb_ops.airflow.provider_info import get_provider_info as read; "
        "import wb_ops; print(wb_ops.__file__, read()['package-name'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(tmp_path / "wb_ops/__init__.py"), "wb-ops"]
