"""Commands and their options."""

from __future__ import annotations

import click

import wb_ops
from wb_ops.cli.backfill import backfill
from wb_ops.cli.export import export


@click.group()
@click.version_option(wb_ops.__version__, prog_name="wb-ops")
def cli() -> None:
    """Weights & Biases run data into a warehouse and back.

    The API key comes from WANDB_API_KEY, netrc or `wandb login`; the server from WANDB_BASE_URL.
    """


@cli.command()
@click.option("--port", default=0, show_default=True, help="0 takes a free port.")
@click.option("--db", default=":memory:", help="SQLite file that keeps the data.")
def devserver(port: int, db: str) -> None:
    """Serve a W&B-compatible API on 127.0.0.1, for tests and trials, until interrupted."""
    try:
        from wb_ops.devserver.__main__ import serve
    except ModuleNotFoundError as exc:
        raise click.ClickException(
            f"{exc.name} is missing: pip install 'wb-ops[devserver]'"
        ) from exc
    serve(port=port, path=db)


cli.add_command(backfill)
cli.add_command(export)
