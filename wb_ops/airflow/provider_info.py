"""What Airflow's provider manager reads, before Airflow is set up: imports nothing of it."""

from __future__ import annotations

from typing import Any

_INTEGRATION = "Weights & Biases"


def get_provider_info() -> dict[str, Any]:
    """Return the provider's metadata: connection form, modules, extra links.

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
            _modules("wb_ops.airflow.operators.backfill", "wb_ops.airflow.operators.export")
        ],
        "extra-links": ["wb_ops.airflow.links.WandbProjectLink"],
        "connection-types": [_connection_type()],
    }


def _modules(*names: str) -> dict[str, Any]:
    return {"integration-name": _INTEGRATION, "python-modules": list(names)}


def _connection_type() -> dict[str, Any]:
    return {
        "connection-type": "wandb",
        "hook-class-name": "wb_ops.airflow.hooks.wandb.WandbHook",
        "hook-name": _INTEGRATION,
        "ui-field-behaviour": {
            "hidden-fields": ["schema", "login", "port"],
            "relabeling": {"host": "API base URL", "password": "API key"},
            "placeholders": {"host": "https://api.wandb.ai"},
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
