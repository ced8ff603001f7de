"""Buttons on a task's page that lead to W&B."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.providers.common.compat.sdk import XCom
from airflow.sdk import BaseOperatorLink

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey


class _PushedLink(BaseOperatorLink):
    """A link whose URL the operator pushes, before anything can fail."""

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return what the operator pushed; empty if the task did not come that far."""
        return str(XCom.get_value(ti_key=ti_key, key=self.xcom_key) or "")


class WandbProjectLink(_PushedLink):
    """The W&B page of the project that a task works on."""

    name = "W&B project"
    xcom_key = "wandb_project_url"


class WandbRunLink(_PushedLink):
    """The W&B page of the run that a task waits for or works on."""

    name = "W&B run"
    xcom_key = "wandb_run_url"
