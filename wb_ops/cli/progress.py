"""A bar on a terminal; in a log a line now and then."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

SECONDS_BETWEEN_LINES = 30.0
# One run may take minutes: the time left is by what these brought.
SECONDS_OF_SPEED = 600.0

# Takes what is done, what is to be done in all, and words to show beside the bar.
Advance = Callable[[int, int, str], None]


@contextmanager
def progress_bar(console: Console, what: str) -> Iterator[Advance]:
    """Show how many of `what` are done, for as long as the block runs.

    Where this is no terminal, lines with the same numbers go to stderr.
    """
    columns = (
        SpinnerColumn(), TextColumn(what), MofNCompleteColumn(), BarColumn(),
        TextColumn("{task.fields[note]}"), TimeElapsedColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    is_log = not console.is_terminal
    with Progress(
        *columns, console=console, transient=True, disable=is_log,
        speed_estimate_period=SECONDS_OF_SPEED,
    ) as bar:  # fmt: skip
        task = bar.add_task(what, total=None, note="")
        told_at = time.monotonic()

        def advance(done: int, total: int, note: str) -> None:
            nonlocal told_at
            bar.update(task, completed=done, total=total, note=note)
            if is_log and time.monotonic() - told_at >= SECONDS_BETWEEN_LINES:
                told_at = time.monotonic()
                click.echo(_line(bar, task), err=True)

        yield advance


def _line(bar: Progress, number: TaskID) -> str:
    task = bar.tasks[number]
    count = MofNCompleteColumn().render(task)
    gone, left = TimeElapsedColumn().render(task), TimeRemainingColumn().render(task)
    parts = (f"{count} {task.description}", task.fields["note"], f"{gone} gone, {left} left")
    return "  ".join(filter(None, parts))
