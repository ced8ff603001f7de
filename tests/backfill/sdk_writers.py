"""The real W&B SDK beside a backfill: logs a run, and edits finished ones through its own Api.

Arguments: how many runs to edit. Prints "ready", logs for as long as standard input is open.
"""

from __future__ import annotations

import sys
import threading
import time

import wandb

PATH = "ann/trials"


def edit(count: int) -> None:
    """The documented loop: W&B's own way to write a summary."""
    for index in range(count):
        run = wandb.Api().run(f"{PATH}/r{index:03}")
        run.summary["edited"] = index
        run.summary.update()


if __name__ == "__main__":
    live = wandb.init(entity="ann", project="trials", id="live", name="live")
    live.log({"loss": 1.0}, step=0)
    print("ready", flush=True)
    editor = threading.Thread(target=edit, args=(int(sys.argv[1]),))
    editor.start()
    done = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), done.set()), daemon=True).start()
    step = 1
    while not done.is_set():
        live.log({"loss": 1.0 / step}, step=step)
        step += 1
        time.sleep(0.05)
    editor.join()
    live.finish()
