"""Asset URIs with the scheme `wandb`. Imports nothing: Airflow loads it for every asset."""

from __future__ import annotations

from urllib.parse import SplitResult, quote, urlsplit

_DAYS = "days"


def normalize_wandb_uri(uri: SplitResult) -> SplitResult:
    """Return wandb://entity/project/runs in one form, so that one project is one asset.

    Raises:
        ValueError: it does not name an entity and a project.
    """
    parts = [part for part in uri.path.split("/") if part]
    if not uri.netloc or not parts or uri.query:
        raise ValueError(
            f"{uri.geturl()!r} is no W&B asset: give wandb://entity/project/runs, "
            "wandb://entity/project/runs/run_id or wandb://entity/project/days."
        )
    if len(parts) == 1:
        parts.append("runs")
    return uri._replace(path="/" + "/".join(parts))


def runs_uri(entity: str, project: str) -> str:
    """Return the URI of a project's runs."""
    return f"wandb://{quote(entity, safe='')}/{quote(project, safe='')}/runs"


def days_uri(entity: str, project: str) -> str:
    """Return the URI of a project's runs by the day they were created."""
    return f"wandb://{quote(entity, safe='')}/{quote(project, safe='')}/{_DAYS}"


def is_days_uri(uri: str) -> bool:
    """Whether it is one that `days_uri` made."""
    parts = urlsplit(uri)
    return parts.scheme == "wandb" and parts.path.split("/")[2:] == [_DAYS]
