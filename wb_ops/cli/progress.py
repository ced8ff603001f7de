"""A bar on a terminal; nothing in a log, where the report says it all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

# Takes what is done, what is to be done in all, and words to show beside the bar.
Advance = Callable[[int, int, str], None]


@contextmanager
def progress_bar(console: Console, what: str) -> Iterator[Advance]:
    """Show how many of `what` are done, for as long as the block runs, if this is a terminal."""
    columns = (
        SpinnerColumn(), TextColumn(what), MofNCompleteColumn(), BarColumn(),
        TextColumn("{task.fields[note]}"), TimeElapsedColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    is_log = not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=is_log) as bar:
        task = bar.add_task(what, total=None, note="")
        yield lambda done, total, note: bar.update(task, completed=done, total=total, note=note)
