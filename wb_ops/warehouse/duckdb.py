"""A DuckDB file as warehouse. Data, receipts and state move in one transaction."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pyarrow as pa

from wb_ops.errors import WarehouseBusy, WarehouseError, WarehouseRefused, WarehouseUnavailable
from wb_ops.tables.schemas import (
    TABLES,
)
from wb_ops.warehouse.base import Batch, Committed, Owner
from wb_ops.warehouse.duckdb_tables import (
    add_columns,
    by_columns,
    check_owner,
    create_tables,
    delete,
    insert,
    insert_history,
    mark_deleted,
    read,
    record_owner,
    schema_exists,
    select,
    table_exists,
    upsert,
)

BUSY_RETRY_S = 15.0


class DuckDBWarehouse:
    """One file. It is opened for the length of one call, so that others get at it between."""

    def __init__(self, path: Path, *, lock_timeout_s: float) -> None:
        self._path = path
        self._lock_timeout_s = lock_timeout_s

    def __repr__(self) -> str:
        return f"DuckDBWarehouse({self.url!r})"

    @property
    def url(self) -> str:
        """duckdb:/// and the path."""
        return f"duckdb:///{self._path}"

    def check(self, dataset: str, owner: Owner) -> None:
        """Refuse a missing folder, an ambiguous name, another project's dataset, a newer schema."""
        folder = self._path.absolute().parent
        if not folder.is_dir():
            raise WarehouseRefused(
                f"{folder} does not exist: create it, or give an absolute path with four slashes "
                "(duckdb:////data/x.duckdb).",
                path=self.url,
            )
        # DuckDB names the database by the file, up to its first dot.
        if dataset.lower() == self._path.name.split(".")[0].lower():
            raise WarehouseRefused(
                f"The dataset {dataset!r} would have the name of its DuckDB file, which SQL cannot "
                "tell apart: choose another file name or pass dataset=.",
                path=self.url,
            )
        if self._path.exists():
            with self._connection(read_only=False) as connection:
                check_owner(connection, dataset, owner)

    def read_tables(self, dataset: str, names: Sequence[str]) -> dict[str, pa.Table]:
        """Return whole tables in their canonical schema; missing ones are empty."""
        empty = {name: TABLES[name].schema.empty_table() for name in names}
        if not self._path.exists():
            return empty
        with self._connection(read_only=True) as connection:
            return {
                name: read(connection, dataset, name)
                if table_exists(connection, dataset, name)
                else empty[name]
                for name in names
            }

    def query(self, sql: str, dataset: str | None = None) -> pa.Table:
        """Run a SELECT and return its rows.

        Raises:
            WarehouseRefused: the SQL is wrong, or it would write (retry: never).
        """
        if not self._path.exists():
            raise WarehouseRefused(f"{self.url} does not exist: export into it first.")
        with self._connection(read_only=True) as connection:
            if dataset is not None:
                if not schema_exists(connection, dataset):
                    raise WarehouseRefused(f"{self.url} has no dataset {dataset!r}.")
                connection.execute(f"SET schema = '{dataset}'")
            return select(connection, sql)

    def commit(self, batch: Batch) -> Committed:
        """Write a batch in one transaction; new columns come in the same one.

        Exports of one process take turns; one of another process is waited for.
        """
        with self._transaction() as connection:
            check_owner(connection, batch.dataset, batch.owner)
            create_tables(connection, batch.dataset)
            runs = upsert(connection, batch.dataset, "runs", batch.runs)
            delete(connection, batch.dataset, "history", batch.replaced)
            rows = 0
            new_columns: list[str] = []
            for staged in by_columns(batch.history):
                new_columns += add_columns(connection, batch.dataset, staged)
                rows += insert_history(connection, batch.dataset, staged)
            mark_deleted(connection, batch.dataset, batch.deleted, batch.load_id)
            for name, table in batch.meta.items():
                upsert(connection, batch.dataset, name, table)
            return Committed(runs, rows, tuple(new_columns))

    def append(
        self, dataset: str, table_name: str, rows: pa.Table, *, owner: Owner | None = None
    ) -> None:
        """Append rows to a journal table in one transaction; `owner` is checked and recorded."""
        with self._transaction() as connection:
            create_tables(connection, dataset)
            if owner is not None:
                check_owner(connection, dataset, owner)
                record_owner(connection, dataset, owner)
            insert(connection, dataset, table_name, rows)

    @contextmanager
    def _transaction(self) -> Iterator[duckdb.DuckDBPyConnection]:
        with self._turn(), self._connection(read_only=False) as connection:
            connection.begin()
            try:
                yield connection
            except BaseException:
                connection.rollback()
                raise
            connection.commit()

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """One writer of this process at a time; DuckDB would refuse the second one's commit."""
        lock = _turn_of(self._path)
        if not lock.acquire(timeout=self._lock_timeout_s):
            raise self._busy(None)
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def _connection(self, *, read_only: bool) -> Iterator[duckdb.DuckDBPyConnection]:
        connection = self._open(read_only)
        try:
            connection.execute("SET TimeZone = 'UTC'; SET preserve_insertion_order = false")
            yield connection
        except duckdb.Error as exc:
            raise self._mapped(exc) from exc
        finally:
            connection.close()

    def _open(self, read_only: bool) -> duckdb.DuckDBPyConnection:
        deadline = time.monotonic() + self._lock_timeout_s
        while True:
            try:
                return duckdb.connect(str(self._path), read_only=read_only)
            except (duckdb.IOException, duckdb.ConnectionException) as exc:
                error = self._mapped(exc)
                if not isinstance(error, WarehouseBusy) or time.monotonic() >= deadline:
                    raise error from exc
            except duckdb.Error as exc:
                raise self._mapped(exc) from exc
            # Jitter: two that wait for the same lock must not meet again and again.
            time.sleep(random.uniform(0.05, 0.5))  # noqa: S311 - not for secrets

    def _mapped(self, exc: duckdb.Error) -> WarehouseError:
        text = str(exc)
        if isinstance(exc, duckdb.TransactionException) or any(
            words in text for words in ("lock on file", "different configuration")
        ):
            return self._busy(exc)
        if isinstance(exc, duckdb.IOException) and not any(
            words in text.lower()
            for words in ("read-only", "permission", "no space", "not a valid", "cannot open")
        ):
            return WarehouseUnavailable(f"{self.url}: {text}", exc, path=self.url)
        return WarehouseRefused(f"{self.url}: {text}", exc, path=self.url)

    def _busy(self, exc: Exception | None) -> WarehouseBusy:
        return WarehouseBusy(
            f"{self.url} is held by another writer for longer than {self._lock_timeout_s:g} s, "
            "or changed under this one.",
            exc,
            retry_after_s=BUSY_RETRY_S,
            path=self.url,
        )


_turns: dict[Path, threading.Lock] = {}
_turns_lock = threading.Lock()


def _turn_of(path: Path) -> threading.Lock:
    with _turns_lock:
        return _turns.setdefault(path.resolve(), threading.Lock())
