"""The command `wb-ops`: parse, call the core, print.

In:  arguments and WANDB_* variables. Out: text or JSON, and an exit code after sysexits.
May import: everything but dagster, airflow and dlt. It does nothing the library cannot.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; the console script's entry point."""
    try:
        from wb_ops.cli.failures import run
        from wb_ops.cli.main import cli
    except ModuleNotFoundError as exc:
        if exc.name not in ("click", "rich"):
            raise
        sys.exit("wb-ops needs click and rich: pip install 'wb-ops[cli,duckdb]'")
    sys.exit(run(cli, sys.argv[1:]))
