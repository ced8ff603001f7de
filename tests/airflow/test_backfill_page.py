"""The operator on the page about backfills does what the page says."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "backfill.md").read_text()


@pytest.mark.usefixtures("connection")
def test_one_operator_writes_the_best_and_the_loss_there(
    server: Any, run_dag: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    history = [{"_step": step, "val_acc": acc, "loss": step} for step, acc in enumerate((1, 3, 2))]
    server.seed_run("my-team", "my-project", "r1", history=history, summary="{}")
    (code,) = re.findall(r"```python airflow\n(.*?)```", PAGE, flags=re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(code, "docs/backfill.md", "exec"), names)
    task = run_dag(names["dag"]).get_task_instance("best")
    assert (task.state, task.xcom_pull(task_ids="best")["written"]) == ("success", 3)
    from wb_ops.airflow import WandbHook

    with WandbHook().get_conn() as api:
        assert dict(api.run("my-team/my-project/r1").summary) == {
            "best_val_acc": 3, "best_val_acc_step": 1, "loss_at_best_val_acc": 1,
        }  # fmt: skip
