"""The asset on the page about backfills does what the page says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

PAGE = (Path(__file__).parents[2] / "docs" / "backfill.md").read_text()


def test_one_asset_writes_the_best_and_the_loss_there(bench):
    history = [{"_step": step, "val_acc": acc, "loss": step} for step, acc in enumerate((1, 3, 2))]
    bench.server.seed_run("my-team", "my-project", "r1", history=history, summary="{}")
    (code,) = re.findall(r"```python dagster\n(.*?)```", PAGE, flags=re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(code, "docs/backfill.md", "exec"), names)
    ran = bench.run(names["best_val_acc"])
    assert ran.metadata("best_val_acc")["wandb/values_written"] == 3
    with bench.resources["wandb"].get_api() as api:
        assert dict(api.run("my-team/my-project/r1").summary) == {
            "best_val_acc": 3, "best_val_acc_step": 1, "loss_at_best_val_acc": 1,
        }  # fmt: skip
