"""How long the shipped Dag files take to parse, over `import airflow.sdk`.

    python benchmarks/airflow_parse.py [--repeat 5]

Each file is parsed in a process of its own, which has imported the Task SDK and connected to
nothing. Medians of wall time, and of CPU time, which a busy machine does not change: with Airflow's
own parts that the file uses counted (the providers, the trigger base class), and our part alone.
Ends with status 1 where a file takes more CPU than the limit.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

DAGS = sorted((Path(__file__).parents[1] / "airflow_dags").glob("*.py"))
LIMIT_S = 0.5
PARSE = """
import json, runpy, sys, time
from airflow import DAG
from airflow.sdk import Asset, AssetWatcher, BaseHook, BaseOperator, BaseSensorOperator, Param
if sys.argv[2] == "ours":
    import airflow.triggers.base
    import airflow.providers.common.compat.connection, airflow.providers.common.compat.sdk
    import airflow.providers.standard.operators.hitl
began, cpu = time.perf_counter(), time.process_time()
runpy.run_path(sys.argv[1])
print(json.dumps([time.perf_counter() - began, time.process_time() - cpu]))
"""


def parse_s(path: Path, counted: str, home: str) -> tuple[float, float]:
    """Wall and CPU seconds for one file in a fresh process."""
    done = subprocess.run(
        [sys.executable, "-c", PARSE, str(path), counted],
        env={**os.environ, "AIRFLOW_HOME": home},
        capture_output=True,
        text=True,
        check=True,
    )
    wall, cpu = json.loads(done.stdout.splitlines()[-1])
    return wall, cpu


def main() -> None:
    """Print a line for each file, and whether the slowest is within the limit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=5)
    repeat = parser.parse_args().repeat
    print(f"{'s over import airflow.sdk':26} {'wall':>6} {'cpu':>6} | {'ours':>6} {'cpu':>6}")
    slowest_s = 0.0
    with tempfile.TemporaryDirectory() as home:
        for path in DAGS:
            cells = []
            for counted in ("all", "ours"):
                times = [parse_s(path, counted, home) for _ in range(repeat)]
                medians = [statistics.median(one) for one in zip(*times, strict=True)]
                cells.append(" ".join(f"{one:6.2f}" for one in medians))
                slowest_s = max(slowest_s, medians[1])
            print(f"{path.name:26} {' | '.join(cells)}")
    print(f"the slowest takes {slowest_s:.2f} s of CPU, the limit is {LIMIT_S} s")
    sys.exit(slowest_s > LIMIT_S)


if __name__ == "__main__":
    main()
