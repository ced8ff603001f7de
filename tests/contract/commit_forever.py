"""Commit load after load until killed: `commit_forever.py URL FOLDER FIRST_LOAD`.

Load n replaces three runs by n rows each, in every table. A line is printed before each commit.
"""

from __future__ import annotations

import sys
from itertools import count
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from batches import Batches, flat

from wb_ops import connect
from wb_ops.warehouse import Batch

RUNS = ("r1", "r2", "r3")
METRICS = 6


def load(folder: Path, number: int) -> Batch:
    """The batch of one load."""
    make = Batches(folder)
    load_id = f"load-{number}"
    values = [float(number)] * number
    metrics = {f"metric-{index}": values for index in range(METRICS)}
    system = [make.system_metrics(run_id, {"cpu": float(number)}) for run_id in RUNS]
    leaves = {run_id: {"config.n": float(number), f"config.n{number}": 1.0} for run_id in RUNS}
    return make.batch(
        dict.fromkeys(RUNS, metrics), load_id=load_id, flat=flat(leaves, load_id),
        system_metrics=system, replaced_system=RUNS,
    )  # fmt: skip


def main(url: str, folder: str, first: str) -> None:
    """Commit until killed."""
    warehouse = connect(url)
    for number in count(int(first)):
        batch = load(Path(folder), number)
        print(number, flush=True)
        warehouse.commit(batch)


if __name__ == "__main__":
    main(*sys.argv[1:])
