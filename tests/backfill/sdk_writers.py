"""The real W&B SDK beside backfills: logs some runs, and edits finished ones through its own Api.

Arguments: how many finished runs to edit, how many runs to log, and how often these send what they
have (the SDK's own default is 15 s). Prints "ready", logs for as long as standard input is open,
then ends its runs and prints how many lines each has.
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


def start(number: int, interval_s: float) -> wandb.Run:
    run_id = f"live{number}"
    return wandb.init(
        entity="ann", project="trials", id=run_id, name=run_id, reinit="create_new",
        settings=wandb.Settings(x_file_stream_transmit_interval=interval_s),
    )  # fmt: skip


if __name__ == "__main__":
    runs = [start(number, float(sys.argv[3])) for number in range(int(sys.argv[2]))]
    for run in runs:
        run.log({"loss": 1.0}, step=0)
    print("ready", flush=True)
    editor = threading.Thread(target=edit, args=(int(sys.argv[1]),))
    editor.start()
    done = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), done.set()), daemon=True).start()
    step = 1
    while not done.is_set():
        for run in runs:
            run.log({"loss": 1.0 / step, "steps": step}, step=step)
        step += 1
        time.sleep(0.05)
    editor.join()
    for run in runs:
        run.log({"last": step}, step=step)
        run.finish()
    print(step, flush=True)
