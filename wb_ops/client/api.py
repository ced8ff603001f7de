"""Api: where a program starts. The names are those of W&B's own public API."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from wb_ops.client.history import HistoryReader
from wb_ops.client.lists import LazyList
from wb_ops.client.operations import VIEWER, Operation
from wb_ops.client.paths import item_path_parts, project_path_parts
from wb_ops.client.projects import Project, list_projects
from wb_ops.client.runs import Run, Runs
from wb_ops.client.sampled import chosen_keys
from wb_ops.client.scan import MAX_ROWS_IN_FLIGHT, scan_histories
from wb_ops.client.selection import Require, Selection
from wb_ops.client.source import RunSource
from wb_ops.client.sweeps import Sweep, fetch_sweep
from wb_ops.client.transport import Transport
from wb_ops.client.users import User, user_of
from wb_ops.errors import AuthenticationFailed, CommError, InvalidRequest
from wb_ops.settings import Settings, resolve_settings

if TYPE_CHECKING:
    import pyarrow as pa


# Where W&B puts runs that name no project.
DEFAULT_PROJECT = "uncategorized"


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
        self._viewer: User | None = None

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
    def settings(self) -> dict[str, str | None]:
        """The defaults for what paths do not name: base_url, entity, project."""
        chosen = self._settings
        return {"base_url": chosen.base_url, "entity": chosen.entity, "project": chosen.project}

    @property
    def viewer(self) -> User:
        """Who the key belongs to. One request, kept until `flush()`.

        Raises:
            AuthenticationFailed: the server does not know the key (retry: never).
        """
        if self._viewer is None:
            viewer = user_of(self.transport.execute(Operation("Viewer", VIEWER)).get("viewer"))
            if viewer is None:
                raise AuthenticationFailed(
                    f"{self._settings.base_url} does not know this API key: it may be of another "
                    "server, or revoked. Copy a new one from the settings page.",
                    operation="Viewer",
                )
            self._viewer = viewer
        return self._viewer

    @property
    def default_entity(self) -> str:
        """The entity for paths that name none: the setting, else the key's own (one request)."""
        return self._settings.entity or str(self.viewer.entity)

    def flush(self) -> None:
        """Forget what is kept: the viewer, and whether the server has parquet exports.

        Runs and listings are never kept: each call of `run()` and `runs()` reads anew.
        """
        self._viewer = None
        self._reader.has_parquet = self._reader.takes_many = True

    def projects(self, entity: str | None = None, per_page: int = 200) -> LazyList[Project]:
        """Return the projects of an entity (None: the default one), lazily and list-like."""
        return list_projects(self.transport, self._reader, entity or self.default_entity, per_page)

    def project(self, name: str, entity: str | None = None) -> Project:
        """Return a project by its name, or by its path or the URL of its page. No request yet."""
        path = name if entity is None else f"{entity}/{name}"
        return Project(self.source(path), self._reader)

    def sweep(self, path: str) -> Sweep:
        """Return one sweep by `entity/project/sweep_id`, shorter, or the URL of its page.

        One request.

        Raises:
            NotFound: no such sweep, or this key cannot see it (retry: never).
        """
        source, sweep_id = self._item(path, "sweep")
        return fetch_sweep(source, self._reader, sweep_id)

    def runs(
        self,
        path: str | None = None,
        filters: Mapping[str, Any] | None = None,
        order: str = "-created_at",
        per_page: int = 50,
        include_sweeps: bool = False,
        lazy: bool = True,
    ) -> Runs:
        """Return the runs of `entity/project` that match `filters`, lazily.

        `filters` is a MongoDB-style dict that the server evaluates, such as
        `{"state": "finished", "config.lr": {"$gt": 0.1}}`. `order` is a field with + or -, such
        as "+created_at", "-summary_metrics.loss". `per_page` (at most 1,000) is the size of a
        request, not a limit. No request before the first run is needed.

        `include_sweeps` and `lazy` are taken for the sake of W&B's signature. They change
        nothing: a run always comes with config and summary, and asks for its sweep when it is
        read.
        """
        return Runs(self.source(path), self._reader, filters, order, per_page)

    def run(self, path: str) -> Run:
        """Return one run by `entity/project/run_id`, shorter, or the URL of its page.

        One request. What a shorter path leaves out is the default entity and project.

        Raises:
            NotFound: no such run, or this key cannot see it (retry: never).
        """
        source, run_id = self._item(path, "run")
        return Run(source, self._reader, source.fetch_node(run_id))

    def from_path(self, path: str) -> Project | Run | Sweep:
        """Return what a path or URL names: a run, a sweep (with `/sweeps/` in it) or a project."""
        if "/sweeps/" in path:
            return self.sweep(path)
        if "/runs/" in path or ("://" not in path and path.strip("/ ").count("/") == 2):
            return self.run(path)
        # A project may have that name.
        if "/reports/" in path and project_path_parts(path)[-1:] != ["reports"]:
            raise InvalidRequest(f"{path!r} is a report: read reports with W&B's own SDK.")
        return self.project(path)

    def source(self, path: str | None) -> RunSource:
        """The project `entity/project`, or `project` of the default entity, or its page's URL.

        None is the default project: the setting, else "uncategorized", as in W&B's SDK.
        """
        if path is None:
            path = self._settings.project or DEFAULT_PROJECT
        parts = project_path_parts(path)
        if len(parts) not in (1, 2) or not all(parts):
            raise InvalidRequest(f"{path!r} is no project: give entity/project.")
        entity = parts[0] if len(parts) == 2 else self.default_entity
        return RunSource(self.transport, entity, parts[-1])

    def _item(self, path: str, kind: str) -> tuple[RunSource, str]:
        parts = item_path_parts(path)
        if len(parts) == 1 and self._settings.project:
            parts = [self._settings.project, *parts]
        if len(parts) not in (2, 3):
            raise InvalidRequest(
                f"{path!r} is no {kind}: give entity/project/{kind}_id, project/{kind}_id, "
                "or its URL."
            )
        entity = parts[0] if len(parts) == 3 else self.default_entity
        return RunSource(self.transport, entity, parts[-2]), parts[-1]

    def scan_histories(
        self,
        runs: Iterable[Run],
        keys: Sequence[str] | None = None,
        max_rows_in_flight: int = MAX_ROWS_IN_FLIGHT,
        *,
        min_step: int | None = None,
        max_step: int | None = None,
        require: Require = "any",
        on_error: Callable[[Run, CommError], None] | None = None,
    ) -> Iterator[tuple[Run, pa.RecordBatchReader]]:
        """Yield (run, its whole history as a `pyarrow.RecordBatchReader`), each as it is ready.

        Lazy: histories are read ahead of you, several at once, while those under way have at most
        `max_rows_in_flight` rows. Short histories are in memory; of a long one the files are on
        disk and memory holds one group of rows, so that one huge run is no trouble. Rows, columns
        and `keys` as in `run.history_table`. One request for the sources of 20 runs, and one for
        each file or window of steps.

        `on_error(run, error)` is told of a run that cannot be read (deleted meanwhile, a broken
        file), and the others go on; without it the error is raised. Authentication and rate
        limits always are.

        Raises:
            CommError: by the table in `errors`; also while a stream is read.
        """
        selection = Selection(chosen_keys(keys), min_step, max_step, require)
        return scan_histories(self._reader, runs, selection, max_rows_in_flight, on_error)

    @property
    def reader(self) -> HistoryReader:
        """The reader of histories that all runs of this Api share."""
        return self._reader
