"""Api: where a program starts. The names are those of W&B's own public API."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from types import TracebackType
from typing import Any
from urllib.parse import unquote, urlsplit

from wb_ops.client.history import HistoryReader
from wb_ops.client.operations import VIEWER, Operation
from wb_ops.client.runs import Run, Runs
from wb_ops.client.source import RunSource
from wb_ops.client.transport import Transport
from wb_ops.errors import AuthenticationFailed, InvalidRequest
from wb_ops.settings import Settings, resolve_settings


class Api:
    """Reads and writes runs of one W&B server. Makes no request before it is asked something.

    Args:
        overrides: `base_url`, `entity` and `project`, as in W&B's SDK.
        timeout: seconds without a byte before one request is given up (default 30).
        api_key: else WANDB_API_KEY, netrc, or W&B's settings file.
        settings: everything at once, instead of the above.
        max_wait_s: the longest wait for a rate limit that is slept here; a longer one raises
            RateLimited at once.

    Raises:
        AuthenticationFailed: there is no key, or it has not the form of one (retry: never).

    Example:
        >>> with Api() as api:
        ...     for run in api.runs("my-team/my-project", filters={"state": "finished"}):
        ...         print(run.name, run.summary.get("loss"))
    """

    def __init__(
        self,
        overrides: Mapping[str, str] | None = None,
        timeout: float | None = None,
        api_key: str | None = None,
        *,
        settings: Settings | None = None,
        max_wait_s: float = 120.0,
    ) -> None:
        chosen = dict(overrides or {})
        if unknown := set(chosen) - {"base_url", "entity", "project"}:
            raise InvalidRequest(
                f"overrides has {sorted(unknown)}: give base_url, entity or project."
            )
        self._settings = settings or resolve_settings(
            api_key=api_key, timeout_s=timeout, max_wait_s=max_wait_s, environ=os.environ, **chosen
        )
        self.transport = Transport(self._settings)
        self._reader = HistoryReader(self._settings.max_in_flight)
        self._viewer: dict[str, Any] | None = None

    def __repr__(self) -> str:
        return f"<Api {self._settings.base_url}>"

    def __enter__(self) -> Api:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the threads that read histories."""
        self._reader.close()

    @property
    def viewer(self) -> dict[str, Any]:
        """Who the key belongs to: id, entity, username, email, teams. One request, kept.

        Raises:
            AuthenticationFailed: the server does not know the key (retry: never).
        """
        if self._viewer is None:
            viewer = self.transport.execute(Operation("Viewer", VIEWER)).get("viewer")
            if viewer is None:
                raise AuthenticationFailed(
                    f"{self._settings.base_url} does not know this API key: it may be of another "
                    "server, or revoked. Copy a new one from the settings page.",
                    operation="Viewer",
                )
            self._viewer = dict(viewer)
        return self._viewer

    @property
    def default_entity(self) -> str:
        """The entity for paths that name none: the setting, else the key's own (one request)."""
        return self._settings.entity or str(self.viewer["entity"])

    def flush(self) -> None:
        """Forget what is kept: the viewer, and whether the server has parquet exports."""
        self._viewer = None
        self._reader.has_parquet = True

    def runs(
        self,
        path: str | None = None,
        filters: Mapping[str, Any] | None = None,
        order: str = "-created_at",
        per_page: int = 50,
    ) -> Runs:
        """Return the runs of `entity/project` that match `filters`, lazily.

        `filters` is a MongoDB-style dict that the server evaluates, such as
        `{"state": "finished", "config.lr": {"$gt": 0.1}}`. `order` is a field with + or -, such
        as "+created_at", "-summary_metrics.loss". `per_page` (at most 1,000) is the size of a
        request, not a limit. No request before the first run is needed.
        """
        return Runs(self.source(path), self._reader, filters, order, per_page)

    def run(self, path: str) -> Run:
        """Return one run by `entity/project/run_id`, `project/run_id` or the URL of its page.

        One request.

        Raises:
            NotFound: no such run, or this key cannot see it (retry: never).
        """
        parts = run_path_parts(path)
        if len(parts) == 1 and self._settings.project:
            parts = [self._settings.project, *parts]
        if len(parts) not in (2, 3):
            raise InvalidRequest(
                f"{path!r} is no run: give entity/project/run_id, project/run_id, or its URL."
            )
        *scope, run_id = parts
        source = self.source("/".join(scope))
        return Run(source, self._reader, source.fetch_node(run_id))

    def source(self, path: str | None) -> RunSource:
        """The project `entity/project`, or `project` of the default entity."""
        parts = (path or self._settings.project or "").strip("/ ").split("/")
        if len(parts) > 2 or not all(part.strip() for part in parts):
            raise InvalidRequest(f"{path!r} is no project: give entity/project.")
        project = parts[-1].strip()
        entity = parts[0].strip() if len(parts) == 2 else self.default_entity
        return RunSource(self.transport, entity, project)

    @property
    def reader(self) -> HistoryReader:
        """The reader of histories that all runs of this Api share."""
        return self._reader


def run_path_parts(path: str) -> list[str]:
    """Split a run path or run page URL into [entity, project, run id] or what it has of them.

    Source: SDK 0.31 `_parse_path`; URLs are ours.
    """
    text = path.strip()
    if re.match(r"https?://", text):
        text = unquote(urlsplit(text).path)
    text = text.replace("/runs/", "/").replace(":", "/").strip("/ ")
    return [part.strip() for part in text.split("/") if part.strip()]
