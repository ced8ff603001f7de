"""One task of an Airflow worker, as an executor starts it: the supervisor, and its task process.

Arguments: server URL, key, warehouse URL, an empty folder. There is no scheduler and no database:
what the supervisor asks of Airflow's API is answered here as for a first try of a manual run.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from uuid import uuid4

import httpx

ended: list[str] = []
NOW = "2026-01-01T00:00:00Z"
DAG = """
from airflow.sdk import DAG
from wb_ops.airflow import WandbExportOperator

with DAG("shared_file", schedule=None):
    WandbExportOperator(
        task_id="export", entity="ann", project="two", warehouse={url!r}, retries=0
    )
"""


def answer(request: httpx.Request) -> httpx.Response:
    """What Airflow's API says of the task's run; nothing is stored there."""
    if request.url.path.endswith("/state"):
        ended.append(json.loads(request.content)["state"])
    if not request.url.path.endswith("/run"):
        return httpx.Response(404 if request.method == "GET" else 200, json={"ok": True})
    run = {
        "dag_id": "shared_file", "run_id": "manual", "run_type": "manual", "state": "running",
        "logical_date": NOW, "start_date": NOW, "run_after": NOW, "end_date": None,
        "data_interval_start": NOW, "data_interval_end": NOW, "partition_key": None,
        "consumed_asset_events": [],
    }  # fmt: skip
    return httpx.Response(200, json={"dag_run": run, "max_tries": 0, "should_retry": False})


def main(server: str, key: str, url: str, folder: str) -> int:
    """Run the task; 0 if the task succeeded."""
    home = Path(folder)
    (home / "dags").mkdir()
    (home / "dags" / "shared.py").write_text(DAG.format(url=url))
    os.environ |= {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(home / "dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW_CONN_WANDB_DEFAULT": json.dumps(
            {"conn_type": "wandb", "host": server, "password": key}
        ),
    }
    from airflow.executors.workloads import BundleInfo
    from airflow.executors.workloads.task import TaskInstanceDTO as TaskInstance
    from airflow.sdk.api.client import Client
    from airflow.sdk.execution_time.supervisor import supervise_task

    ti = TaskInstance(
        id=uuid4(), dag_version_id=uuid4(), task_id="export", dag_id="shared_file",
        run_id="manual", try_number=1, map_index=-1, pool_slots=1, queue="default",
        priority_weight=1,
    )  # fmt: skip
    supervise_task(
        ti=ti, bundle_info=BundleInfo(name="dags-folder", version=None), dag_rel_path="shared.py",
        token="", subprocess_logs_to_stdout=True,
        client=Client(
            base_url="http://airflow", token="", transport=httpx.MockTransport(answer)
        ),
    )  # fmt: skip
    return 0 if "success" in ended else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
