"""Where an operator's warehouse is: a URL without a password, or the name of a connection.

Airflow stores what operators are given, renders it, and shows it to whoever may see the Dag.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

from airflow.sdk import BaseHook
from airflow.sdk.log import mask_secret

import wb_ops
from wb_ops.errors import InvalidRequest
from wb_ops.warehouse.urls import passwords_in

if TYPE_CHECKING:
    from airflow.sdk import Connection

    from wb_ops.warehouse import Warehouse

SCHEME = "conn://"
# What Airflow's own PostgreSQL hook keeps in a connection's extra is not all for libpq.
_OPTIONS = (
    "sslmode", "sslrootcert", "sslcert", "sslkey", "connect_timeout", "application_name",
    "target_session_attrs", "options", "history_columns", "flat_columns",
)  # fmt: skip


def open_warehouse(url: str) -> Warehouse:
    """Return the warehouse of an operator's argument; opens nothing yet.

    Args:
        url: as `wb_ops.connect` takes it, without a password; or conn://my_warehouse, which is
            the Airflow connection of that id: one of the type Postgres.

    Raises:
        InvalidRequest: the URL holds a password, or the connection is of another type (retry:
            never).
        WarehouseRefused: as in `wb_ops.connect` (retry: never).
    """
    if not url.startswith(SCHEME):
        return wb_ops.connect(without_password(url))
    return wb_ops.connect(_url_of(BaseHook.get_connection(url.removeprefix(SCHEME).strip("/"))))


def without_password(url: str) -> str:
    """Return a warehouse's URL as it is, if Airflow may store it.

    For Dag files, too: a URL from the environment that becomes the default of a Param is stored.

    Raises:
        InvalidRequest: it holds a password; the error does not (retry: never).
    """
    if passwords_in(url):
        raise InvalidRequest(
            "warehouse= holds a password, and Airflow stores and shows what operators and Params "
            "are given: put it into an Airflow connection of the type Postgres, and give "
            'warehouse="conn://ID_OF_THE_CONNECTION".'
        )
    return url


def mask_passwords(text: str) -> None:
    """Have Airflow mask what looks like a URL's password, before it stores a rendered template."""
    for password in passwords_in(text):
        mask_secret(password)


def _url_of(connection: Connection) -> str:
    if connection.conn_type not in ("postgres", "postgresql"):
        raise InvalidRequest(
            f"warehouse=conn://{connection.conn_id} is a connection of the type "
            f"{connection.conn_type!r}: give one of the type Postgres. The URLs of the other "
            "warehouses hold no secret: give them as they are."
        )
    signs = (connection.login, connection.password)
    user, password = (quote(text or "", safe="") for text in signs)
    if password:
        # Airflow masks a connection's password, but not how a URL spells it.
        mask_secret(password)
    host = connection.host or ""
    # An IPv6 address has colons; the folder of a socket has slashes.
    place = f"[{host}]" if ":" in host and not host.startswith("[") else quote(host, safe="[:]")
    port = f":{connection.port}" if connection.port else ""
    extra = connection.extra_dejson
    options = urlencode({name: extra[name] for name in _OPTIONS if name in extra}, quote_via=quote)
    signed = f"{user}:{password}@" if password else f"{user}@" if user else ""
    database = quote(connection.schema or "", safe="")
    return f"postgresql://{signed}{place}{port}/{database}{f'?{options}' if options else ''}"
