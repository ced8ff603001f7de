"""W&B and the warehouse as Dagster resources: configuration only, no network at set-up."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field, PrivateAttr

from wb_ops.dagster.literals import (
    definition_without_key,
    is_literal,
    refuse_key_beside_launchpad,
    refuse_password,
)
from wb_ops.settings import Settings, resolve_settings

if TYPE_CHECKING:
    from wb_ops.client.api import Api
    from wb_ops.dagster.project import Reported
    from wb_ops.export.request import Mode
    from wb_ops.warehouse import Warehouse


class WandbResource(dg.ConfigurableResource["WandbResource"]):
    """Access to one W&B server.

    What is not given is looked up where the run executes: environment, netrc, W&B's settings
    file. That is the best place for the key; `dg.EnvVar("TEAM_WANDB_API_KEY")` is read there too.
    A literal `api_key`, of a test's server for example, stays in the processes that load the
    code: Dagster's snapshots hold the other values only.

    Example:
        >>> @dg.asset
        ... def best_run(wandb: WandbResource) -> None:
        ...     with wandb_retries():
        ...         runs = wandb.get_api().runs("my-team/cifar", order="+summary_metrics.loss")
        ...         print(runs[0].name)
    """

    api_key: str | None = Field(
        default=None,
        repr=False,
        description="API key, best as dg.EnvVar. Default: WANDB_API_KEY, netrc, W&B's settings "
        "file.",
    )
    base_url: str | None = Field(
        default=None,
        description="The server's API address. Default: WANDB_BASE_URL, then https://api.wandb.ai.",
    )
    entity: str | None = Field(default=None, description="Entity of paths that name none.")
    project: str | None = Field(default=None, description="Project of paths that name none.")
    timeout_s: float = Field(
        default=30.0, description="Seconds without a byte before one request is given up."
    )
    max_wait_s: float = Field(
        default=5.0,
        description="Longest wait for W&B's request limit that is slept inside a step; for a "
        "longer one the step gives its slot back and Dagster starts it again afterwards.",
    )
    max_attempts: int = Field(
        default=6, description="How often one request is tried before the step fails."
    )

    _api: Api | None = PrivateAttr(default=None)
    # Dagster tells resources apart by the identity of their definitions.
    _without_key: Any = PrivateAttr(default=None)

    def get_api(self) -> Api:
        """Return the client; it makes no request before it is asked something.

        Raises:
            AuthenticationFailed: no key anywhere, or one of the wrong form (retry: never).
            InvalidRequest: the base URL is not one (retry: never).
        """
        if self._api is None:
            from wb_ops import Api

            self._api = Api(settings=self._settings())
        return self._api

    def export(
        self,
        context: dg.AssetExecutionContext,
        warehouse: WarehouseResource,
        *,
        mode: Mode = "incremental",
    ) -> Iterator[Reported]:
        """Export what the step's `@wandb_assets` say, and yield the results for Dagster.

        They are a MaterializeResult for each selected table and the results of its checks.

        Args:
            context: the step's context; its partitions narrow the export.
            warehouse: where the tables go.
            mode: as ExportRequest; a partition is compared whole in any case.

        Raises:
            dagster.Failure, dagster.RetryRequested: as `wandb_retries` translates.
        """
        from wb_ops.dagster.project import ProjectExport

        yield from ProjectExport.of(context).execute(context, self, warehouse, mode)

    def open_api(self, budget_s: float) -> Api:
        """Return a client of its own, to be closed, that begins no request after `budget_s`.

        A silent server is given up after a third of it. For sensors, which Dagster ends after a
        minute.

        Raises:
            AuthenticationFailed, InvalidRequest: as `get_api`.
        """
        from wb_ops import Api

        settings = self._settings()
        api = Api(
            settings=replace(
                settings,
                timeout_s=min(settings.timeout_s, budget_s / 3),
                max_wait_s=min(settings.max_wait_s, budget_s / 3),
            )
        )
        api.transport.end_after(budget_s)
        return api

    def _settings(self) -> Settings:
        settings = resolve_settings(
            api_key=self.api_key,
            base_url=self.base_url,
            entity=self.entity,
            project=self.project,
            timeout_s=self.timeout_s,
            max_wait_s=self.max_wait_s,
        )
        return replace(settings, max_attempts=self.max_attempts)

    def get_resource_definition(self) -> Any:
        """Return what Dagster puts into its snapshots: never a literal key."""
        if not is_literal(self.api_key):
            return super().get_resource_definition()
        if self._without_key is None:
            self._without_key = definition_without_key(self)
        return self._without_key

    @classmethod
    def configure_at_launch(cls, **kwargs: Any) -> Any:
        """Return the resource with the values that are not given left to the launchpad.

        Raises:
            DagsterInvalidDefinitionError: `api_key` is a literal.
        """
        refuse_key_beside_launchpad(kwargs.get("api_key"))
        return super().configure_at_launch(**kwargs)

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:
        """End the client's threads."""
        if self._api is not None:
            self._api.close()
            self._api = None


class WarehouseResource(dg.ConfigurableResource["WarehouseResource"]):
    """Where the tables go, such as `duckdb:////data/experiments.duckdb`.

    A URL with a password comes from the environment, where the run executes:
    `WarehouseResource(url=dg.EnvVar("WB_OPS_WAREHOUSE"))`. Dagster keeps literal values in its
    snapshots, so a location with a literal password is refused when it loads. A password can
    also be left to libpq: PGPASSWORD, or a password file.
    """

    url: str = Field(repr=False, description="duckdb:///FILE, or another kind's URL.")
    lock_timeout_s: float = Field(
        default=120.0, description="Seconds to wait for another writer before the step gives way."
    )

    def get_warehouse(self) -> Warehouse:
        """Return the warehouse; nothing is opened yet.

        Raises:
            WarehouseRefused: no such kind, or its driver is not installed (retry: never).
        """
        from wb_ops import connect

        return connect(self.url, lock_timeout_s=self.lock_timeout_s)

    def get_resource_definition(self) -> Any:
        """Return what Dagster puts into its snapshots.

        Raises:
            DagsterInvalidDefinitionError: `url` is a literal with a password in it.
        """
        refuse_password(self.url)
        return super().get_resource_definition()

    @classmethod
    def configure_at_launch(cls, **kwargs: Any) -> Any:
        """Return the resource with the values that are not given left to the launchpad.

        Raises:
            DagsterInvalidDefinitionError: `url` is a literal with a password in it.
        """
        refuse_password(kwargs.get("url"))
        return super().configure_at_launch(**kwargs)


def both_or_neither(
    wandb: WandbResource | None, warehouse: WarehouseResource | None
) -> tuple[WandbResource, WarehouseResource] | None:
    """The resources of these assets alone, or None where they use those of the location.

    Raises:
        DagsterInvalidDefinitionError: only one of them is given.
    """
    if wandb is not None and warehouse is not None:
        return wandb, warehouse
    if wandb is None and warehouse is None:
        return None
    raise dg.DagsterInvalidDefinitionError("Give both `wandb` and `warehouse`, or neither.")
