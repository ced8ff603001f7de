"""Reads the backfilled values with W&B's own SDK."""

from __future__ import annotations

import sys

import wandb


def main(entity: str, project: str) -> int:
    """Print each run's value; 1 if a finished run lacks it."""
    missing = 0
    for run in sorted(wandb.Api().runs(f"{entity}/{project}"), key=lambda run: run.name):
        best = run.summary.get("best_val_acc")
        missing += best is None and run.state == "finished"
        shown = "not written" if best is None else f"{best:.4f}"
        last = f"last val_acc {run.summary['val_acc']:.4f}"
        print(f"{run.name:<22} {run.state:<9} best_val_acc {shown:<12} {last}", flush=True)
    return int(missing > 0)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
