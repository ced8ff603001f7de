"""From an error to one line on stderr and an exit code that a scheduler understands."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import ParamSpec

import click

from wb_ops.errors import (
    AuthenticationFailed,
    InvalidRequest,
    NotFound,
    PermissionDenied,
    WarehouseRefused,
    WbOpsError,
)

# After sysexits.h.
EX_USAGE = 64
EX_CANTCREAT = 73
EX_TEMPFAIL = 75
EX_NOPERM = 77
EX_SOFTWARE = 70

P = ParamSpec("P")


def exits_with_advice(command: Callable[P, None]) -> Callable[P, None]:
    """Print an error of ours with its advice and exit with its code; leave others as they are."""

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except WbOpsError as error:
            click.echo(f"{type(error).__name__}: {error}", err=True)
            for note in getattr(error, "__notes__", ()):
                click.echo(note, err=True)
            click.echo(f"Try again: {_advice(error)}", err=True)
            sys.exit(exit_code(error))

    return wrapped


def run(command: click.Command, arguments: list[str]) -> int:
    """Run the command line and return its exit code; wrong usage is 64, not click's 2."""
    try:
        command.main(arguments, prog_name="wb-ops", standalone_mode=False)
    except click.UsageError as error:
        error.show()
        return EX_USAGE
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        click.echo("Aborted.", err=True)
        return EX_TEMPFAIL
    return 0


def exit_code(error: WbOpsError) -> int:
    """75 if a later try can help; else 77 no permission, 64 usage, 73 not writable, 70 other."""
    if error.advice.retryable:
        return EX_TEMPFAIL
    if isinstance(error, AuthenticationFailed | PermissionDenied):
        return EX_NOPERM
    if isinstance(error, NotFound | InvalidRequest):
        return EX_USAGE
    return EX_CANTCREAT if isinstance(error, WarehouseRefused) else EX_SOFTWARE


def _advice(error: WbOpsError) -> str:
    advice = error.advice
    if advice.seconds is not None:
        return f"after {advice.seconds:.0f} s"
    return "later" if advice.retryable else "no, it would fail again"
