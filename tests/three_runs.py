"""Three runs in three states, as the tests of the command `wb-ops export` want them."""

from __future__ import annotations

from collections.abc import Callable

from wb_ops.devserver import DevServer

# Runs the command line; exit code, stdout, stderr.
Command = Callable[..., tuple[int, str, str]]
SECRET = "hf_" + "aB" * 17
TO = ("--to", "duckdb:///w.duckdb")


def seed_three(server: DevServer) -> None:
    for index, state in enumerate(["finished", "failed", "running"]):
        server.seed_run(
            "ann", "trials", f"r{index}", state=state, display_name=f"run {index}",
            history=[{"_step": step, "loss": 1.0 * step} for step in range(5)],
            config={"lr": index / 10, "_internal": 1, "hub_token": SECRET},
            summary={"loss": index}, events=[{"_timestamp": 1.0, "system.cpu": 1}],
        )  # fmt: skip
