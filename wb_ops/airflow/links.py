"""Buttons on a task's page that lead to W&B."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

from airflow.providers.common.compat.sdk import XCom
from airflow.sdk import BaseOperatorLink

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey


class WandbProjectLink(BaseOperatorLink):
    """The W&B page of the project that a task works on.

    The operator pushes the URL before its first request, so that a failed task has the link too.
    """

    name = "W&B project"
    xcom_key = "wandb_project_url"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return what the operator pushed; empty if the task did not come that far."""
        return str(XCom.get_value(ti_key=ti_key, key=self.xcom_key) or "")


def project_url(base_url: str, entity: str, project: str) -> str:
    """Return the project's page: the hosted API has an `api.` of its own, other servers do not."""
    app = base_url.replace("://api.wandb.", "://wandb.", 1)
    return f"{app}/{quote(entity, safe='')}/{quote(project, safe='')}"
