"""From a URL to a warehouse."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, parse_qsl, quote, urlencode, urlsplit

from wb_ops.client.texts import check_type
from wb_ops.errors import InvalidRequest, WarehouseRefused
from wb_ops.warehouse.base import Warehouse

LOCK_TIMEOUT_S = 120.0
# So many numbers fit into a row of 8 kB, with all else that it has.
MAX_POSTGRES_COLUMNS = 900


def connect(url: str, *, lock_timeout_s: float = LOCK_TIMEOUT_S) -> Warehouse:
    """Return the warehouse behind `url`; opens nothing yet.

    `duckdb:///x.duckdb` is a file in the working directory, `duckdb:////data/x.duckdb` one at
    /data/x.duckdb (an absolute path brings its own slash). Options follow a question mark:
    `history_columns` and `flat_columns` (the most dynamic columns of `history` and `runs_flat`)
    and `memory_limit` (of DuckDB, such as 4GB).
    `parquet:///folder` and `delta:///folder` are folders, with the same two options for columns;
    `parquet+s3://bucket/folder` is a place that fsspec reaches, its credentials come from the
    environment.

    Raises:
        InvalidRequest: the URL is no text, or the timeout no number (retry: never).
        WarehouseRefused: no such kind of warehouse, an unknown option, or its driver is not
            installed (retry: never).
    """
    if not isinstance(url, str):
        # What it is may hold a password.
        raise InvalidRequest(
            f"url is a {type(url).__name__}: give a text, such as duckdb:///x.duckdb."
        )
    check_type("lock_timeout_s", lock_timeout_s, (int, float), "seconds, such as 120")
    if not lock_timeout_s >= 0:  # nor NaN
        raise InvalidRequest(f"lock_timeout_s={lock_timeout_s}: give seconds, such as 120.")
    try:
        parts = urlsplit(url)
    except ValueError as exc:
        raise WarehouseRefused("The warehouse's URL cannot be read as a URL.") from exc
    scheme, plus, _ = parts.scheme.partition("+")
    kind = _KINDS.get(scheme) if not plus or scheme in _LAKES else None
    if kind is None:
        forms = ", ".join(form for form, _ in _KINDS.values())
        # The rest of a URL may hold a password or a token.
        named = parts.scheme or "a URL without a scheme"
        raise WarehouseRefused(f"No warehouse for {named}: use {forms} (docs/warehouses.md).")
    return kind[1](parts, lock_timeout_s)


def _duckdb(parts: SplitResult, lock_timeout_s: float) -> Warehouse:
    if parts.netloc or not parts.path.strip("/"):
        raise WarehouseRefused(
            "The duckdb: URL names no file: use duckdb:///FILE, with three slashes."
        )
    options = _options(
        parts, {"history_columns": _count, "flat_columns": _count, "memory_limit": str}
    )
    try:
        from wb_ops.warehouse.duckdb import DuckDBWarehouse
    except ModuleNotFoundError as exc:
        raise WarehouseRefused(
            "DuckDB is not installed: pip install 'wb-ops[duckdb]'.", exc
        ) from exc
    return DuckDBWarehouse(Path(parts.path[1:]), lock_timeout_s=lock_timeout_s, **options)


def _lake(parts: SplitResult, lock_timeout_s: float) -> Warehouse:
    options = _options(parts, {"history_columns": _count, "flat_columns": _count})
    try:
        from wb_ops.warehouse.lake.connect import connect_lake
    except ModuleNotFoundError as exc:
        raise WarehouseRefused(
            f"{exc.name} is not installed: pip install 'wb-ops[parquet]'.", exc
        ) from exc
    return connect_lake(parts, lock_timeout_s=lock_timeout_s, **options)


def _postgres(parts: SplitResult, lock_timeout_s: float) -> Warehouse:
    if parts.fragment or "@" in parts.path + parts.query or parts.netloc.count("@") > 1:
        raise WarehouseRefused(
            "The warehouse's URL is ambiguous: write @ / ? # in a user or password as %40 %2F %3F "
            "%23."
        )
    ours = {"history_columns": _count_in_row, "flat_columns": _count_in_row}
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    own = urlencode([pair for pair in pairs if pair[0] in ours])
    # The others are options of the connection, such as host, sslmode and connect_timeout.
    libpq = urlencode([pair for pair in pairs if pair[0] not in ours], quote_via=quote)
    options = _options(parts._replace(query=own), ours)
    try:
        from wb_ops.warehouse.postgres import PostgresWarehouse
    except ModuleNotFoundError as exc:
        raise WarehouseRefused(
            "The PostgreSQL driver is not installed: pip install 'wb-ops[postgres]'.", exc
        ) from exc
    url = f"{parts.scheme}://{parts.netloc}{parts.path}"
    return PostgresWarehouse(
        f"{url}?{libpq}" if libpq else url, lock_timeout_s=lock_timeout_s, **options
    )


def _options(parts: SplitResult, known: Mapping[str, Callable[[str], Any]]) -> dict[str, Any]:
    options = {}
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name not in known:
            raise WarehouseRefused(
                f"{parts.scheme}: unknown option {name!r}, there are {', '.join(known)}."
            )
        try:
            options[name] = known[name](value)
        except ValueError as exc:
            raise WarehouseRefused(f"{parts.scheme}: option {name}={value!r}: {exc}.") from exc
    return options


def _count(text: str) -> int:
    if not text.isdecimal():
        raise ValueError("give a whole number")
    return int(text)


def _count_in_row(text: str) -> int:
    count = _count(text)
    if count > MAX_POSTGRES_COLUMNS:
        raise ValueError(
            f"give {MAX_POSTGRES_COLUMNS} at most, PostgreSQL's rows hold no more; what gets no "
            "column goes to history_long, or stays in config and summary"
        )
    return count


# scheme -> how its URLs look, and what makes a warehouse of one
_KINDS: dict[str, tuple[str, Callable[[SplitResult, float], Warehouse]]] = {
    "duckdb": ("duckdb:///FILE (relative) or duckdb:////ABSOLUTE/FILE", _duckdb),
    "postgresql": ("postgresql://USER@HOST/DATABASE", _postgres),
    "parquet": ("parquet:///FOLDER or parquet+s3://BUCKET/FOLDER", _lake),
    "delta": ("delta:///FOLDER or delta+s3://BUCKET/FOLDER", _lake),
}
# these may name the protocol of their storage behind a plus
_LAKES = ("parquet", "delta")
