"""`make demo`: the whole job, and what happens when a step fails."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from demo.steps import StepFailed, run_step

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_demo_runs_end_to_end(tmp_path: Path):
    """In a folder of its own, so that it does not touch what a person's demo wrote."""
    for name in ("demo", "dagster_defs", "airflow_dags"):
        (tmp_path / name).symlink_to(ROOT / name)
    done = subprocess.run(
        [sys.executable, "-m", "demo"], cwd=tmp_path, text=True, capture_output=True,
        timeout=580, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert done.stdout.count("finished") >= 8
    assert "8 to write (8 edited)" in " ".join(done.stdout.split())
    assert "0 histories with 0 rows" in " ".join(done.stdout.split())
    assert (tmp_path / "demo-output" / "learning_curves.png").stat().st_size > 20_000
    assert left_running(tmp_path) == []


def left_running(folder: Path) -> list[str]:
    def where(process: psutil.Process) -> str:
        try:
            return process.cwd()
        except (psutil.AccessDenied, psutil.NoSuchProcess, psutil.ZombieProcess):
            return ""

    return [process.name() for process in psutil.process_iter() if where(process) == str(folder)]


def test_a_step_that_fails_says_why_and_where(tmp_path: Path):
    with pytest.raises(StepFailed, match=r"ended with 1.*train\.log") as caught:
        run_step("train", {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}, tmp_path)
    assert "TypeError" in str(caught.value)
