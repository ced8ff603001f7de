"""What parsing a Dag file imports: it happens in every process, again and again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

DAGS = sorted((Path(__file__).parents[2] / "airflow_dags").glob("*.py"))
HEAVY = {
    "pyarrow", "pandas", "numpy", "duckdb", "deltalake", "adbc_driver_postgresql", "dlt",
    "dagster", "wandb", "tenacity", "requests", "fsspec",
}  # fmt: skip

PARSE = """
import json, runpy, sys
import airflow.sdk
# What the shipped Dags take from Airflow itself.
from airflow.sdk import DAG, Asset, AssetWatcher, BaseHook, BaseOperator, BaseSensorOperator, Param
from airflow.triggers.base import BaseEventTrigger
import airflow.providers.common.compat.sdk, airflow.providers.common.compat.connection
from airflow.providers.standard.operators.hitl import ApprovalOperator
before = set(sys.modules)
found = {}
for path in sys.argv[1:]:
    runpy.run_path(path)
    found[path] = sorted(set(sys.modules) - before)
print(json.dumps(found))
"""


def test_a_dag_file_imports_nothing_heavy(airflow_home: Path) -> None:
    """Over Airflow itself: our own light modules, and nothing that reads or writes data."""
    done = subprocess.run(
        [sys.executable, "-c", PARSE, *map(str, DAGS)],
        env={**os.environ, "AIRFLOW_HOME": str(airflow_home)},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert set(found) == set(map(str, DAGS))
    for path, modules in found.items():
        heavy = HEAVY & {name.partition(".")[0] for name in modules}
        assert not heavy, f"{path} imports {heavy}"
        others = {name for name in modules if not name.startswith(("wb_ops", "airflow"))}
        assert len(others) < 60, f"{path} imports {sorted(others)}"
        assert "wb_ops.airflow.operators.base" in modules


@pytest.mark.parametrize("path", DAGS, ids=lambda path: path.stem)
def test_a_dag_file_says_what_it_is_for(path: Path) -> None:
    """It is to be copied alone: its text is the page that Airflow shows."""
    source = path.read_text()
    assert source.startswith('"""')
    assert "doc_md=__doc__" in source
