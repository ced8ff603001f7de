"""The server itself: two origins on 127.0.0.1, served from a background thread."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import Self, Unpack

from wb_ops.devserver.auth import DEV_API_KEY, Accounts, ApiKey, is_well_formed
from wb_ops.devserver.backend import Backend, Options
from wb_ops.devserver.faults import Faults
from wb_ops.devserver.hosting import Host, bind, url_of
from wb_ops.devserver.jsontext import JsonSource
from wb_ops.devserver.requestlog import RequestLog
from wb_ops.devserver.routes import api_app
from wb_ops.devserver.seeding import RunEdit, RunFields, RunSeed, Seeder
from wb_ops.devserver.storage import storage_app
from wb_ops.devserver.sweeps import SweepSeed, seed_sweep


class DevServer:
    """A W&B-compatible server that runs while the object is open.

    Both sockets are bound in the constructor, so a port that is taken fails here. Use it as a
    context manager or call :meth:`close`.

    Args:
        port: The API's port; 0 takes a free one. The storage origin always takes a free one.
        path: A SQLite file that outlives the server, or ``:memory:``.
        api_keys: The accounts behind the accepted keys; by default :data:`DEV_API_KEY` alone.
        identity_tokens: The accounts behind the JWTs that ``/oidc/token`` takes.
        access_token_ttl_s: How long an access token that it gives is valid, in seconds.
        parquet: Whether runs that have ended are exported as parquet.
        parquet_rows_per_file: How many rows an exported file holds at most.
        shuffles_urls: Whether export URLs come in an arbitrary order, as W&B's do.
        url_ttl_s: How long a signed URL is valid, in seconds.
        features: Server features that are on.

    Raises:
        OSError: the port is taken.
        ValueError: a key is shorter than W&B's clients accept.

    Example:
        with DevServer() as server:
            server.seed_run("ann", "demo", "r1", history=[{"_step": 0, "loss": 0.5}])
            requests.post(server.url + "/graphql", auth=("api", server.api_key), json={...})
    """

    def __init__(
        self,
        *,
        port: int = 0,
        path: str = ":memory:",
        api_keys: Mapping[str, ApiKey] | None = None,
        identity_tokens: Mapping[str, ApiKey] | None = None,
        access_token_ttl_s: int = 3600,
        parquet: bool = True,
        parquet_rows_per_file: int = 10_000,
        shuffles_urls: bool = True,
        url_ttl_s: float = 3600.0,
        features: Iterable[str] = (),
    ) -> None:
        keys = api_keys or {DEV_API_KEY: ApiKey()}
        if not all(map(is_well_formed, keys)):
            raise ValueError("an API key has 40 or more letters, digits, dashes or underscores")
        options = Options(
            has_parquet=parquet,
            parquet_rows_per_file=parquet_rows_per_file,
            shuffles_urls=shuffles_urls,
            url_ttl_s=url_ttl_s,
            features=frozenset(features),
        )
        with ExitStack() as undo:
            sockets = [undo.enter_context(bind(wanted)) for wanted in (port, 0)]
            self.url, self.storage_url = (url_of(bound) for bound in sockets)
            self.api_key = next(iter(keys))
            self._backend = Backend(
                url=self.url,
                storage_url=self.storage_url,
                path=path,
                accounts=Accounts(keys, identity_tokens or {}, access_token_ttl_s),
                options=options,
            )
            undo.pop_all()
        self._seeder = Seeder(self._backend)
        apps = [api_app(self._backend, self._seeder), storage_app(self._backend)]
        self._hosts = [Host(app, bound) for app, bound in zip(apps, sockets, strict=True)]

    @property
    def faults(self) -> Faults:
        """The faults that are set."""
        return self._backend.faults

    @property
    def requests(self) -> RequestLog:
        """Every request so far, of both origins."""
        return self._backend.requests

    def seed_run(self, entity: str, project: str, run_id: str, **fields: Unpack[RunFields]) -> str:
        """Make a run, ``finished`` unless said otherwise; its storage id.

        See :class:`~wb_ops.devserver.seeding.RunFields` for the fields.
        """
        seed: RunSeed = {"entity": entity, "project": project, "run_id": run_id, **fields}
        return self._seeder.seed_run(seed)

    def seed_runs(self, seeds: Iterable[RunSeed]) -> list[str]:
        """Make many runs in one transaction; their storage ids."""
        return self._seeder.seed_runs(seeds)

    def edit_run(self, entity: str, project: str, run_id: str, **fields: Unpack[RunEdit]) -> None:
        """Replace fields of a run; ``updated_at`` becomes now, ``heartbeat_at`` stays."""
        self._seeder.edit_run(entity, project, run_id, fields)

    def seed_sweep(self, **seed: Unpack[SweepSeed]) -> None:
        """Make a sweep; its runs name it in ``sweep``.

        See :class:`~wb_ops.devserver.sweeps.SweepSeed` for the fields.
        """
        seed_sweep(self._backend, seed)

    def set_state(self, entity: str, project: str, run_id: str, state: str) -> None:
        """Put a run into any state, ``crashed`` and ``killed`` among them."""
        self._seeder.edit_run(entity, project, run_id, {"state": state})

    def append_history(
        self, entity: str, project: str, run_id: str, rows: Iterable[JsonSource]
    ) -> None:
        """Append history lines; the heartbeat moves."""
        self._seeder.append_history(entity, project, run_id, rows)

    def finish_run(self, entity: str, project: str, run_id: str, exit_code: int = 0) -> None:
        """End a run."""
        self._seeder.finish_run(entity, project, run_id, exit_code)

    def delete_run(self, entity: str, project: str, run_id: str) -> None:
        """Remove a run."""
        self._seeder.delete_run(entity, project, run_id)

    def delete_project(self, entity: str, project: str) -> None:
        """Remove a project with its runs: it answers null from now on."""
        self._backend.store.delete_project(entity, project)

    def export_run(self, entity: str, project: str, run_id: str) -> int:
        """Generate a run's parquet files now instead of at first use; how many there are."""
        return len(self._backend.exports.export(self._seeder.find(entity, project, run_id)).files)

    def reset(self) -> None:
        """Forget runs, faults and requests."""
        self._backend.reset()

    def close(self) -> None:
        """Stop serving and close both sockets."""
        for host in self._hosts:
            host.ask_to_stop()
        for host in self._hosts:
            host.wait()
        self._backend.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
