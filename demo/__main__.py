"""`make demo`: every step with what a person wants to see of it."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from demo.show import best_runs, learning_curves, next_steps, receipts, table_sizes
from demo.steps import StepFailed, run_step
from wb_ops import Api, ExportRequest, WbOpsError, connect, execute_export, plan_export
from wb_ops.devserver import DevServer

ENTITY, PROJECT = "demo", "digits"
OUTPUT = Path("demo-output")


def main() -> int:
    """Run the whole job; 0, or 1 with the reason."""
    console = Console(width=100 if not sys.stdout.isatty() else None)
    shutil.rmtree(OUTPUT, ignore_errors=True)
    OUTPUT.mkdir()
    started = time.monotonic()
    try:
        with DevServer() as server:
            job(console, server)
    except (StepFailed, WbOpsError) as failure:
        console.print("\n[red]The demo failed.[/]", failure, markup=True, highlight=False)
        return 1
    console.print(f"\nDone in {time.monotonic() - started:.0f} s. Nothing is left running.")
    next_steps(console, OUTPUT)
    return 0


def job(console: Console, server: DevServer) -> None:
    """The main job, step by step."""
    warehouse = connect(f"duckdb:///{(OUTPUT / 'wandb.duckdb').resolve()}")
    environ = environment(server, warehouse.url)
    api = Api({"base_url": server.url}, api_key=server.api_key)
    request = ExportRequest(ENTITY, PROJECT)

    with step(console, "1  Train small models; the W&B SDK logs them to the dev server"):
        console.print(run_step("train", environ, OUTPUT, ENTITY, PROJECT), highlight=False)

    with step(console, "2  Export with Dagster: materialize the assets runs and history"):
        console.print(run_step("materialize", environ, OUTPUT), highlight=False)
        console.print(receipts(warehouse, request))
        console.print(table_sizes(warehouse, request), highlight=False)

    with step(console, "3  Backfill with Airflow: best_val_acc by SQL into each finished run"):
        console.print(run_step("backfill", environ, OUTPUT), highlight=False)

    with step(console, "4  Export again: only what changed is read"):
        plan = plan_export(request, api, warehouse)
        console.print(str(plan), highlight=False)
        console.print(str(execute_export(plan, api, warehouse)), highlight=False)

    with step(console, "5  Read the summaries back with the real wandb.Api()"):
        console.print(run_step("readback", environ, OUTPUT, ENTITY, PROJECT), highlight=False)
        console.print(best_runs(warehouse, request))
        learning_curves(warehouse, request, OUTPUT / "learning_curves.png")


def environment(server: DevServer, warehouse: str) -> dict[str, str]:
    """What the steps run with: this server, folders of their own, nobody's settings."""
    home = OUTPUT.resolve()
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    return {
        **kept,
        "WANDB_BASE_URL": server.url,
        "WANDB_API_KEY": server.api_key,
        "WANDB_ENTITY": ENTITY,
        "WANDB_PROJECT": PROJECT,
        "WANDB_DIR": str(home),
        "WANDB_SILENT": "true",
        "WANDB_ERROR_REPORTING": "false",
        "WB_OPS_ENTITY": ENTITY,
        "WB_OPS_PROJECT": PROJECT,
        "WB_OPS_WAREHOUSE": warehouse,
        "WANDB_CONFIG_DIR": str(home / "no-config"),
        "NETRC": str(home / "no-netrc"),
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
        "DAGSTER_HOME": "",
        "DAGSTER_DISABLE_TELEMETRY": "true",
        "AIRFLOW_HOME": str(home / "airflow"),
    }


@contextmanager
def step(console: Console, title: str) -> Iterator[None]:
    """Print the title before and the seconds after."""
    console.rule(f"[bold]{title}", align="left")
    started = time.monotonic()
    yield
    console.print(f"[dim]{time.monotonic() - started:.1f} s[/]\n")


if __name__ == "__main__":
    sys.exit(main())
