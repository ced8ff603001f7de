"""From an Airflow connection to a W&B client."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from airflow.providers.common.compat.connection import (
    get_async_connection,
    get_async_extra_dejson,
)
from airflow.sdk import BaseHook
from airflow.sdk.log import mask_secret

import wb_ops
from wb_ops.errors import InvalidRequest, WbOpsError
from wb_ops.settings import DEFAULT_BASE_URL, Settings, resolve_settings

if TYPE_CHECKING:
    from airflow.sdk import Connection

    from wb_ops.client.api import Api

# A longer wait is the scheduler's: it holds no worker slot.
MAX_WAIT_S = 5.0
DEFAULT_PORTS = {"http": 80, "https": 443}


class WandbHook(BaseHook):
    """A W&B client from a connection of type `wandb`.

    The connection has the API key as password and the API base URL as host (default
    https://api.wandb.ai); its extra may have `entity`, `project`, `timeout` and `max_wait_s`, the
    last two in seconds. What it leaves out is found as the W&B SDK finds it: WANDB_* variables,
    netrc, W&B's settings files.

    Args:
        wandb_conn_id: the connection.
        logger_name: as in BaseHook.

    Example:
        >>> with WandbHook().get_conn() as api:
        ...     print(api.run("my-team/my-project/3hb41u9x").summary)
    """

    conn_name_attr = "wandb_conn_id"
    default_conn_name = "wandb_default"
    conn_type = "wandb"
    hook_name = "Weights & Biases"

    def __init__(
        self, wandb_conn_id: str = default_conn_name, logger_name: str | None = None
    ) -> None:
        super().__init__(logger_name=logger_name)
        self.wandb_conn_id = wandb_conn_id

    def get_conn(self) -> Api:
        """Return a client; close it, or use it as a context manager. Makes no request.

        Raises:
            AuthenticationFailed: there is no key, or it has not the form of one (retry: never).
            InvalidRequest: the connection's URL or a number in its extra is wrong (retry: never).
        """
        return wb_ops.Api(settings=self._settings())

    async def aget_settings(self) -> Settings:
        """Return what `get_conn` builds its client from; for triggers, which may not block.

        Raises:
            AuthenticationFailed, InvalidRequest: as in `get_conn` (retry: never).
        """
        connection = await get_async_connection(self.wandb_conn_id, hook=self)
        extra = await get_async_extra_dejson(connection)
        # Settings files are read, and a key is masked: neither belongs on the event loop.
        return await asyncio.to_thread(self._resolve, connection, extra)

    def test_connection(self) -> tuple[bool, str]:
        """Ask the server whose key it is; one request, one attempt."""
        try:
            with wb_ops.Api(settings=replace(self._settings(), max_attempts=1)) as api:
                username = api.viewer.username
        except WbOpsError as error:
            return False, error.message
        return True, f"{api.transport.settings.base_url} knows this key as {username}."

    def _settings(self) -> Settings:
        connection = self.get_connection(self.wandb_conn_id)
        return self._resolve(connection, connection.extra_dejson)

    def _resolve(self, connection: Connection, extra: Mapping[str, Any]) -> Settings:
        max_wait_s = self._seconds(extra, "max_wait_s")
        settings = resolve_settings(
            api_key=connection.password,
            base_url=_base_url(connection),
            entity=extra.get("entity"),
            project=extra.get("project"),
            timeout_s=self._seconds(extra, "timeout"),
            max_wait_s=MAX_WAIT_S if max_wait_s is None else max_wait_s,
        )
        # Airflow masks a connection's password; a key from netrc or the environment it does not.
        mask_secret(settings.api_key)
        return settings

    def _seconds(self, extra: Mapping[str, Any], name: str) -> float | None:
        value = extra.get(name)
        if value in (None, ""):
            return None
        try:
            return float(value)
        except (TypeError, ValueError) as exc:
            raise InvalidRequest(
                f"Connection {self.wandb_conn_id!r}: {name}={value!r} is no number of seconds."
            ) from exc


def _base_url(connection: Connection) -> str | None:
    """The host as a URL, with the connection's port where it names none; 0 is no port."""
    host: str | None = connection.host
    if not host:
        return host
    try:
        url = urlsplit(host if "://" in host else f"{connection.schema or 'https'}://{host}")
    except ValueError:
        # Nothing of it, nor of the error that quotes it: people put passwords there.
        raise InvalidRequest(
            f"Connection {connection.conn_id!r}: its host cannot be read as a URL, such as "
            f"{DEFAULT_BASE_URL}."
        ) from None
    names_port = ":" in url.netloc.rpartition("]")[2]
    port = connection.port
    if port and not names_port and port != DEFAULT_PORTS.get(url.scheme):
        url = url._replace(netloc=f"{url.netloc}:{port}")
    return url.geturl()
