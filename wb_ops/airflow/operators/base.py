"""What all operators share: where W&B is, where the warehouse is, and how to retry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk import BaseOperator

from wb_ops.airflow.hooks.wandb import WandbHook
from wb_ops.airflow.links import WandbProjectLink, project_url
from wb_ops.airflow.retry_policy import DEFAULT_RETRY_POLICY, policy_argument

if TYPE_CHECKING:
    from airflow.sdk import BaseOperatorLink, Context, RetryPolicy

    from wb_ops.client.api import Api

RETRIES = 4


class WandbOperator(BaseOperator):
    """Base of the operators that work on one W&B project and one warehouse.

    Args:
        warehouse: its URL, such as duckdb:////data/wandb.duckdb. It is shown in the UI: no secret.
        entity, project: the W&B project; by default those of the connection.
        dataset: the warehouse schema; by default named by rule from entity and project.
        filters: which runs: a MongoDB-style dict, or JSON text of one.
        wandb_conn_id: a connection of type `wandb`.
        retries, retry_policy: as in BaseOperator. These defaults are part of the signature, so
            that `default_args` win over them and mapped tasks have them too.
    """

    template_fields: Sequence[str] = (
        "warehouse",
        "entity",
        "project",
        "dataset",
        "filters",
        "wandb_conn_id",
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {"filters": "json"}
    operator_extra_links: Sequence[BaseOperatorLink] = (WandbProjectLink(),)

    def __init__(
        self,
        *,
        warehouse: str,
        entity: str | None = None,
        project: str | None = None,
        dataset: str | None = None,
        filters: Mapping[str, Any] | str | None = None,
        wandb_conn_id: str = WandbHook.default_conn_name,
        retries: int | None = RETRIES,
        retry_policy: RetryPolicy | None = DEFAULT_RETRY_POLICY,
        **kwargs: Any,
    ) -> None:
        super().__init__(retries=retries, **policy_argument(retry_policy), **kwargs)
        self.warehouse = warehouse
        self.entity = entity
        self.project = project
        self.dataset = dataset
        self.filters = filters
        self.wandb_conn_id = wandb_conn_id

    @property
    def hook(self) -> WandbHook:
        """The hook of the task's connection."""
        return WandbHook(self.wandb_conn_id)

    def _resolve_project(self, api: Api, context: Context) -> tuple[str, str]:
        """Return entity and project, and show the project's page while the task still runs."""
        settings = api.transport.settings
        entity = self.entity or api.default_entity
        project = self.project or settings.project or ""
        url = project_url(settings.base_url, entity, project)
        context["ti"].xcom_push(key=WandbProjectLink.xcom_key, value=url)
        return entity, project
