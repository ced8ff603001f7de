"""Buttons on a task's page: to W&B, and to what a load has to say."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

from airflow.providers.common.compat.sdk import XCom
from airflow.sdk import BaseOperatorLink, conf

from wb_ops.settings import project_url

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator, Context
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


class WandbLoadLink(_PushedLink):
    """The page of the task's XComs, where the report of its load is."""

    name = "Load report"
    xcom_key = "wandb_load_url"


def push_project(context: Context, base_url: str, entity: str, project: str) -> None:
    """Show the project's page while the task still runs.

    Args:
        base_url: the server's API address, as in Settings.
    """
    url = project_url(base_url, entity, project)
    context["ti"].xcom_push(key=WandbProjectLink.xcom_key, value=url)


def load_url(context: Context) -> str:
    """Return the page of a task instance's XComs in Airflow's own web interface.

    Source: the routes of Airflow 3.2 and 3.3; without [api] base_url it is relative to the server.
    """
    ti = context["ti"]
    server = conf.get("api", "base_url", fallback="") or ""
    mapped = f"/mapped/{ti.map_index}" if ti.map_index is not None and ti.map_index >= 0 else ""
    run_id = quote(ti.run_id, safe="")
    return f"{server.rstrip('/')}/dags/{ti.dag_id}/runs/{run_id}/tasks/{ti.task_id}{mapped}/xcom"
