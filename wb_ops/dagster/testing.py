"""For tests of your own Dagster project: resources on a local server, and the error table.

Needs the extra `wb-ops[devserver]`, whose pytest fixture `wandb_server` is a W&B-compatible
server on this machine.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Protocol, TypeAlias

import dagster as dg

from wb_ops.dagster.resource import WandbResource, WarehouseResource
from wb_ops.dagster.retries import wandb_retries

Outcome: TypeAlias = Literal["fails", "policy", "waits"]


class WandbServer(Protocol):
    """What is needed of a server: the fixture `wandb_server` has it."""

    @property
    def url(self) -> str:
        """Its address."""
        ...

    @property
    def api_key(self) -> str:
        """A key that it accepts."""
        ...


def dev_resources(
    server: WandbServer, folder: Path
) -> dict[str, WandbResource | WarehouseResource]:
    """Return the resources `wandb` and `warehouse` for a local server and a DuckDB file.

    They fail fast: one attempt for each request, and no wait longer than a second.

    Example:
        >>> def test_my_assets(wandb_server, tmp_path):
        ...     wandb_server.seed_run("acme", "gpt", "r1", history=[{"_step": 0, "loss": 1.0}])
        ...     resources = dev_resources(wandb_server, tmp_path)
        ...     assert dg.materialize([my_assets], resources=resources).success
    """
    return {
        "wandb": WandbResource(
            base_url=server.url,
            api_key=server.api_key,
            timeout_s=10,
            max_wait_s=1,
            max_attempts=1,
        ),
        "warehouse": WarehouseResource(url=f"duckdb:///{folder.resolve() / 'warehouse.duckdb'}"),
    }


def assert_maps_to(
    error: Exception, outcome: Outcome, *, seconds: float | None = None
) -> dg.Failure | dg.RetryRequested:
    """Assert what becomes of an error inside `wandb_retries`, and return it.

    Args:
        error: such as `wb_ops.errors.RateLimited("slow down", retry_after_s=42)`, or one of
            yours with such a cause.
        outcome: "fails" for good; "policy": the asset's RetryPolicy decides; "waits" as long as
            the server asked for.
        seconds: with "waits": the least wait.

    Raises:
        AssertionError: something else becomes of it, an exception left as it is included.

    Example:
        >>> assert_maps_to(RateLimited("slow down", retry_after_s=42), "waits", seconds=42)
    """
    translated = _translated(error)
    found = _outcome(translated)
    if found != outcome or not isinstance(translated, dg.Failure | dg.RetryRequested):
        raise AssertionError(f"{error!r} {found}, not {outcome}: {translated!r}")
    if seconds is not None:
        waits_s = getattr(translated, "seconds_to_wait", None) or 0.0
        if waits_s < seconds:
            raise AssertionError(f"{error!r} waits {waits_s} s, less than {seconds} s")
    return translated


def _translated(error: Exception) -> Exception:
    try:
        with wandb_retries():
            raise error
    except Exception as translated:  # whatever it is, it is the answer
        return translated


def _outcome(translated: Exception) -> str:
    if isinstance(translated, dg.RetryRequested):
        return "waits"
    if isinstance(translated, dg.Failure):
        return "policy" if translated.allow_retries else "fails"
    return "is left as it is"
