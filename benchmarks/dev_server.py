"""The dev server in a process of its own, with latency, and scripts that read from it.

For comparisons with the real SDK: both sides run in fresh processes, read the same server, and
print the seconds of what is measured, without the start of the interpreter.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from wb_ops.devserver import DevServer
from wb_ops.devserver.faults import Fault, Matcher, Responder

SDK_HISTORY = """
import time, pandas, wandb
run = wandb.Api(timeout=60).run("{path}")
began = time.perf_counter()
rows = len(pandas.DataFrame(run.scan_history()))
print(time.perf_counter() - began, rows)
"""
OUR_HISTORY = """
import time, pandas, pyarrow
from wb_ops import Api
with Api() as api:
    run = api.run("{path}")
    began = time.perf_counter()
    rows = {what}
    print(time.perf_counter() - began, rows)
"""
WAYS = {
    "history_table": "run.history_table().num_rows",
    "history_table().to_pandas()": "len(run.history_table().to_pandas())",
    "scan_history": "len(pandas.DataFrame(run.scan_history()))",
}


def history_scripts(path: str) -> tuple[str, dict[str, str]]:
    """The loop of W&B's guide over one history with the SDK, and ours by name, for `versus`."""
    ours = {name: OUR_HISTORY.format(path=path, what=what) for name, what in WAYS.items()}
    return SDK_HISTORY.format(path=path), ours


@dataclass(frozen=True)
class Side:
    """What one side needs: the server's address and key, and a folder of its own."""

    url: str
    api_key: str
    folder: Path

    def run(self, script: str) -> tuple[float, str]:
        """Run a script that prints seconds and what it found; both."""
        environ = {
            **os.environ, "WANDB_BASE_URL": self.url, "WANDB_API_KEY": self.api_key,
            "HOME": str(self.folder), "WANDB_DIR": str(self.folder), "WANDB_SILENT": "true",
            "WANDB_CACHE_DIR": str(self.folder / "cache"), "WANDB_ERROR_REPORTING": "false",
        }  # fmt: skip
        command = [sys.executable, "-c", script]
        done = subprocess.run(command, env=environ, capture_output=True, text=True)
        if done.returncode:
            sys.exit(done.stderr)
        seconds, found = done.stdout.split()[-2:]
        return float(seconds), found


def _serve(
    seed: Callable[..., None], arguments: tuple[Any, ...], latency_s: float, told: Any, options: Any
) -> None:
    with DevServer(**options) as server:
        seed(server, *arguments)
        if latency_s:
            server.faults.add(Fault(Matcher(), Responder.slow(latency_s), times=None))
        told.send((server.url, server.api_key))
        with suppress(EOFError):
            told.recv()


@contextmanager
def dev_server(
    seed: Callable[..., None], *arguments: Any, latency_s: float, **options: Any
) -> Iterator[Side]:
    """Start a dev server, fill it with `seed(server, *arguments)`, delay its answers."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    asked = (seed, arguments, latency_s, theirs, options)
    process = context.Process(target=_serve, args=asked, daemon=True)
    process.start()
    theirs.close()
    try:
        url, api_key = ours.recv()
        with TemporaryDirectory() as folder:
            yield Side(url, api_key, Path(folder))
    finally:
        ours.close()
        process.join(30)


def versus(
    name: str,
    side: Side,
    sdk: str,
    ours: dict[str, str],
    repetitions: int,
    scale: float = 1.0,
) -> None:
    """Print for each of our scripts how many times as fast as the SDK's it is, run in turns.

    The SDK's script may do the `scale`th part of the work: its seconds are multiplied.
    """
    took: dict[str, list[float]] = {key: [] for key in ours}
    base = []
    for _ in range(repetitions):
        sdk_s, expected = side.run(sdk)
        base.append(sdk_s * scale)
        for key, script in ours.items():
            seconds, found = side.run(script)
            assert int(found) == round(int(expected) * scale), (key, found, expected)
            took[key].append(seconds)
    scaled = f", scaled from 1/{scale:g} of the work" if scale != 1 else ""
    for key in ours:
        ratio = median(sdk_s / ours_s for sdk_s, ours_s in zip(base, took[key], strict=True))
        print(
            f"{name}: {key} is {ratio:.1f}x as fast as the SDK ({median(took[key]):.2f} s and "
            f"{median(base):.2f} s{scaled}; medians of {repetitions})",
            flush=True,
        )
