"""What Airflow's provider manager reads, before Airflow is set up: imports nothing of it."""

from __future__ import annotations

from typing import Any

_INTEGRATION = "Weights & Biases"


def get_provider_info() -> dict[str, Any]:
    """Return the provider's metadata: connection form, config section, modules, links.

    The keys are kebab-case, as in Airflow's provider.yaml; the form is declared here, so the web
    server shows it without importing the hook.
    """
    return {
        "package-name": "wb-ops",
        "name": _INTEGRATION,
        "description": "Export Weights & Biases runs into a warehouse; write summaries back.",
        "integrations": [
            {
                "integration-name": _INTEGRATION,
                "external-doc-url": "https://docs.wandb.ai/",
                "tags": ["service"],
            }
        ],
        "hooks": [_modules("wb_ops.airflow.hooks.wandb")],
        "operators": [
            _modules(
                "wb_ops.airflow.operators.backfill",
                "wb_ops.airflow.operators.export",
                "wb_ops.airflow.operators.export_shards",
                "wb_ops.airflow.operators.filter_runs",
            )
        ],
        "sensors": [_modules("wb_ops.airflow.sensors.run")],
        "triggers": [
            _modules(
                "wb_ops.airflow.triggers.run",
                "wb_ops.airflow.triggers.runs_finished",
                "wb_ops.airflow.triggers.throttle",
            )
        ],
        "task-decorators": [
            {"name": "wandb", "class-name": "wb_ops.airflow.decorators.wandb.wandb_task"}
        ],
        "asset-uris": [
            {"schemes": ["wandb"], "handler": "wb_ops.airflow.uris.normalize_wandb_uri"}
        ],
        "extra-links": [
            "wb_ops.airflow.links.WandbLoadLink",
            "wb_ops.airflow.links.WandbProjectLink",
            "wb_ops.airflow.links.WandbRunLink",
        ],
        "config": {"wandb": _config()},
        "connection-types": [_connection_type()],
    }


def _modules(*names: str) -> dict[str, Any]:
    return {"integration-name": _INTEGRATION, "python-modules": list(names)}


def _config() -> dict[str, Any]:
    return {
        "description": "Defaults of the tasks that talk to Weights & Biases.",
        "options": {
            "poll_interval": {
                "description": "Seconds between two looks of sensors and watchers at W&B.",
                "version_added": "0.1.0",
                "type": "float",
                "example": None,
                "default": "60",
            },
            "max_throttles": {
                "description": "How many waits for a rate limit one try of a deferrable task may "
                "spend in the triggerer before its retries decide.",
                "version_added": "0.1.0",
                "type": "integer",
                "example": None,
                "default": "10",
            },
        },
    }


def _connection_type() -> dict[str, Any]:
    return {
        "connection-type": "wandb",
        "hook-class-name": "wb_ops.airflow.hooks.wandb.WandbHook",
        "hook-name": _INTEGRATION,
        "ui-field-behaviour": {
            # Not the port: Airflow 3.3's Test button is refused where none is stored.
            "hidden-fields": ["schema", "login"],
            "relabeling": {"host": "API base URL", "password": "API key"},
            "placeholders": {"host": "https://api.wandb.ai", "port": "0: as in the URL"},
        },
        "conn-fields": {
            "entity": _field("Entity", "Team or user for tasks that name none.", "string"),
            "project": _field("Project", "Project for tasks that name none.", "string"),
            "timeout": _field(
                "Timeout (s)", "Seconds without a byte before a request is given up.", "number", 30
            ),
            "max_wait_s": _field(
                "Longest wait (s)",
                "The longest rate-limit wait that a worker sleeps; longer ones end the try and "
                "are waited for by the scheduler.",
                "number",
                5,
            ),
        },
    }


def _field(label: str, description: str, kind: str, default: float | None = None) -> dict[str, Any]:
    schema = {"type": [kind, "null"]} | ({} if default is None else {"default": default})
    return {"label": label, "description": description, "schema": schema}
