"""Logs runs with the real W&B SDK, in a process of its own; what it logs is the truth to compare.

Run as a script: `sdk_writer.py HOLD_FILE`. The last run stays open until HOLD_FILE is there.
"""

from __future__ import annotations

import math
import sys
import time
from pathlib import Path
from typing import Any

ENTITY, PROJECT = "ann", "trials"

CONFIG: dict[str, Any] = {
    "lr": 0.1,
    "layers": [64, 32],
    "name": "mlp",
    "use_bias": True,
    "nothing": None,
    "nested": {"opt": {"name": "adam", "eps": 1e-8}, "value": {"value": 3}},
    "a.dotted/key": 1,
    "big": 2**53 + 1,
}
BINS = [0.0, 0.5, 1.0]
LONG_ROWS = 5_000


def odd_rows() -> list[dict[str, Any]]:
    """Rows with every type, special floats, steps with gaps, keys that come and go."""
    return [
        {"_step": 0, "loss": 0.1, "count": 3, "word": "a", "flag": True},
        {"_step": 1, "loss": math.nan, "count": 2**53 + 1, "word": "NaN and more",
         "gone": math.nan},
        {"_step": 7, "word": "NaN", "loss": math.inf, "up": -math.inf, "late": 1},
        {"_step": 1000, "loss": 1e-300, "Loss": 2.5, "val/acc": 0.75, "val.acc": 0.5},
        {"_step": 10**9, "loss": 1 / 3, "flag": False, "hist": BINS},
    ]  # fmt: skip


def long_rows() -> list[dict[str, Any]]:
    """5,000 rows, integers and floats in one metric."""
    return [
        {"_step": step, "loss": 1 / (step + 1), "mixed": step if step % 2 else step / 3}
        for step in range(LONG_ROWS)
    ]


def log(run_id: str, rows: list[dict[str, Any]], hold: Path | None = None) -> None:
    import wandb

    run = wandb.init(
        entity=ENTITY, project=PROJECT, id=run_id, name=f"name of {run_id}", config=CONFIG,
        tags=["one", "two"], notes="a note", group="g", job_type="train",
    )  # fmt: skip
    for row in rows:
        values = {name: value for name, value in row.items() if name != "_step"}
        if "hist" in values:
            values["hist"] = wandb.Histogram(np_histogram=([1, 2], values["hist"]))
        # Without commit the SDK keeps the last row back until the next one comes.
        run.log(values, step=row["_step"], commit=True)
    # A NaN set here would never leave the SDK (0.31); the logged one of "gone" is in the summary.
    run.summary["best"] = {"loss": 0.1}
    run.summary["worst"] = math.inf
    for _ in range(600 if hold else 0):
        if hold.exists():
            break
        time.sleep(0.2)
    run.finish()


if __name__ == "__main__":
    log("odd", odd_rows())
    log("long", long_rows())
    log("running", odd_rows(), hold=Path(sys.argv[1]))
