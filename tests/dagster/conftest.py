"""A dev server with three runs, and a bench that materializes assets of it in this process."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from wb_ops import Warehouse
from wb_ops.dagster import (
    WandbResource,
    WarehouseResource,
    build_wandb_assets,
    build_wandb_backfill_asset,
)
from wb_ops.devserver import ApiKey, DevServer, Fault, Matcher, Responder

ENTITY, PROJECT, DATASET = "ann", "demo", "ann__demo"
# Nowhere else, so that a search for it finds every leak.
KEY = "canary" * 8
FAST = dg.RetryPolicy(max_retries=2, delay=0.01)
BEST_SQL = """
    select run_id, max(val_acc) as best_val_acc from history
    where val_acc <> 'NaN' group by run_id
"""


@pytest.fixture
def server() -> Iterator[DevServer]:
    with DevServer(api_keys={KEY: ApiKey(username=ENTITY)}) as running:
        for number in range(3):
            seed(running, f"r{number}", rows=5 + number)
        yield running


def seed(server: DevServer, run_id: str, rows: int) -> None:
    history = [
        {"_step": step, "_timestamp": 1.7e9 + step, "_runtime": step, "val_acc": step / 10,
         "train/loss": 1 / (step + 1)}
        for step in range(rows)
    ]  # fmt: skip
    server.seed_run(ENTITY, PROJECT, run_id, config={"lr": 0.1}, history=history)


@dataclass
class Ran:
    """One Dagster run, and what people see of it."""

    result: dg.ExecuteInProcessResult
    instance: dg.DagsterInstance

    @property
    def success(self) -> bool:
        return self.result.success

    @property
    def waits(self) -> list[float | None]:
        """Seconds between the attempts, as Dagster was asked."""
        events = [event for event in self.result.all_events if event.is_step_up_for_retry]
        return [event.step_retry_data.seconds_to_wait for event in events]

    @property
    def failure(self) -> dg.DagsterEvent:
        """The one final failure."""
        (event,) = [event for event in self.result.all_events if event.is_step_failure]
        return event

    @property
    def shown(self) -> dict[str, Any]:
        """The metadata of the final failure, as plain values."""
        data = self.failure.step_failure_data.user_failure_data
        return {name: value.value for name, value in data.metadata.items()}

    @property
    def tags(self) -> dict[str, str]:
        return dict(self.instance.get_run_by_id(self.result.run_id).tags)

    def metadata(self, table: str) -> dict[str, Any]:
        """The metadata of a materialization, as plain values."""
        (event,) = [event for event in self._materializations if event.asset_key.path[-1] == table]
        return {name: value.value for name, value in event.materialization.metadata.items()}

    @property
    def materialized(self) -> set[str]:
        return {event.asset_key.path[-1] for event in self._materializations}

    @property
    def _materializations(self) -> list[dg.DagsterEvent]:
        return [event for event in self.result.all_events if event.is_step_materialization]


@dataclass
class Bench:
    """Materializes in this process, against one server and one warehouse."""

    server: DevServer
    folder: Path
    instance: dg.DagsterInstance
    wandb: dict[str, Any] = field(default_factory=dict)
    project: str = PROJECT
    key: str = KEY
    retry_policy: dg.RetryPolicy | None = FAST
    url: str | None = None

    @property
    def resources(self) -> dict[str, Any]:
        given = {"base_url": self.server.url, "api_key": KEY, "max_attempts": 1, **self.wandb}
        url = self.url or f"duckdb:///{self.folder / 'warehouse.duckdb'}"
        return {"wandb": WandbResource(**given), "warehouse": WarehouseResource(url=url)}

    @property
    def warehouse(self) -> Warehouse:
        return self.resources["warehouse"].get_warehouse()

    @property
    def export(self) -> dg.AssetsDefinition:
        return build_wandb_assets(
            entity=ENTITY, project=self.project, retry_policy=self.retry_policy
        )

    def best_metrics(self, **changed: Any) -> dg.AssetsDefinition:
        values = {} if {"compute", "file"} & changed.keys() else {"sql": BEST_SQL}
        return build_wandb_backfill_asset(
            name="best_metrics", entity=ENTITY, project=self.project,
            **{**values, "retry_policy": self.retry_policy, **changed},
        )  # fmt: skip

    def run(self, *assets: dg.AssetsDefinition, **options: Any) -> Ran:
        result = dg.materialize(
            list(assets) or [self.export],
            resources=self.resources,
            instance=self.instance,
            raise_on_error=False,
            **options,
        )
        return Ran(result, self.instance)

    def fail(self, respond: Responder, *, operation: str = "Runs", times: int | None = 1) -> None:
        self.server.faults.add(Fault(Matcher(operation=operation), respond, times=times))

    def rows(self, sql: str) -> list[dict[str, Any]]:
        return self.warehouse.query(sql, DATASET).to_pylist()


@pytest.fixture
def bench(server: DevServer, tmp_path: Path) -> Iterator[Bench]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield Bench(server, tmp_path, instance)
