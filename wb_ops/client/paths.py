"""Paths of projects, runs and sweeps in every form that people have at hand."""

from __future__ import annotations

import re
from urllib.parse import unquote, urlsplit

_URL = re.compile(r"https?://", re.IGNORECASE)
# What follows the project in the address of a page of the project itself.
_PROJECT_PAGES = frozenset(
    {"workspace", "table", "runs", "sweeps", "reports", "overview", "groups", "artifacts", "jobs",
     "automations", "weave"}
)  # fmt: skip


def item_path_parts(path: str) -> list[str]:
    """Split the path or page URL of a run or sweep into [entity, project, id], or what it has.

    Source: SDK 0.31 `_parse_path`, whose forms are `entity/project/id`, `entity/project/runs/id`,
    `project/id`, `entity/project:id`, `project:id` and `id`. URLs are ours.
    """
    text = path.strip()
    if _URL.match(text):
        return _url_parts(text)
    text = text.replace("/runs/", "/").replace("/sweeps/", "/").strip("/ ")
    parts = [part.strip() for part in text.split("/")]
    if len(parts) <= 2 and ":" in parts[-1]:
        parts[-1:] = [part.strip() for part in parts[-1].split(":", 1)]
    return parts if all(parts) else []


def project_path_parts(path: str) -> list[str]:
    """Split the path or page URL of a project into [entity, project], or [project]."""
    text = path.strip()
    if _URL.match(text):
        parts = _segments(text)
        if urlsplit(text).hostname == "wandb.ai":
            # No prefix there, whatever page follows.
            return parts[:2]
        pages = (at for at, part in enumerate(parts) if at >= 2 and part in _PROJECT_PAGES)
        return parts[: next(pages, None)][-2:]
    return [part.strip() for part in text.strip("/ ").split("/")]


def _url_parts(url: str) -> list[str]:
    """The two segments before `runs` or `sweeps` and the one after it; a server's prefix goes."""
    parts = _segments(url)
    for at in range(len(parts) - 2, 1, -1):
        if parts[at] in ("runs", "sweeps"):
            return [*parts[at - 2 : at], parts[at + 1]]
    return []


def _segments(url: str) -> list[str]:
    return [unquote(part) for part in urlsplit(url).path.split("/") if part]
