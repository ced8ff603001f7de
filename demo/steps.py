"""Runs a step as a program of its own, so that no framework's settings reach another's."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

TIMEOUT_S = 600
TAIL_LINES = 15


class StepFailed(Exception):
    """A step ended with an error; the message has its last lines and where the rest is."""


def report_stream() -> TextIO:
    """The stream for what a step has to say; what frameworks print goes to its log."""
    report = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return report


def run_step(name: str, environ: Mapping[str, str], output: Path, *arguments: str) -> str:
    """Run `demo/<name>.py`; returns what it reported. The rest is in `<output>/<name>.log`."""
    log = output / f"{name}.log"
    with log.open("w") as stderr:
        try:
            done = subprocess.run(
                [sys.executable, "-m", f"demo.{name}", *arguments],
                env=dict(environ),
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                timeout=TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired as exc:
            raise StepFailed(f"Step {name} took more than {TIMEOUT_S} s; see {log}.") from exc
    if done.returncode != 0:
        tail = "\n".join((done.stdout + log.read_text()).splitlines()[-TAIL_LINES:])
        raise StepFailed(
            f"Step {name} ended with {done.returncode}; all of it is in {log}.\n{tail}"
        )
    return done.stdout.rstrip()
