"""A DuckDB file as warehouse. Data, receipts and state move in one transaction."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import duckdb
import pyarrow as pa

from wb_ops.errors import WarehouseBusy, WarehouseError, WarehouseRefused
from wb_ops.tables.schemas import TABLES
from wb_ops.warehouse.base import OTHER_DATASET, Batch, Committed, Owner, Read, Warehouse
from wb_ops.warehouse.duckdb_failures import GIVE_RIGHTS, busy, mapped
from wb_ops.warehouse.duckdb_session import DuckDBSession, select_only
from wb_ops.warehouse.layout import Layout, check_name, read_tables
from wb_ops.warehouse.sql import Limits, literal, quoted
from wb_ops.warehouse.writing import write_batch, write_journal

MAX_HISTORY_COLUMNS = 1000
MAX_FLAT_COLUMNS = 500
# DuckDB takes 80 % of the machine by itself; past this it spills into FILE.tmp beside the file.
MEMORY_LIMIT = "1GB"


class DuckDBWarehouse(Warehouse):
    """One file. It is opened for the length of one call, so that others get at it between."""

    def __init__(
        self,
        path: Path,
        *,
        lock_timeout_s: float,
        history_columns: int = MAX_HISTORY_COLUMNS,
        flat_columns: int = MAX_FLAT_COLUMNS,
        memory_limit: str = MEMORY_LIMIT,
    ) -> None:
        self._path = path
        self._lock_timeout_s = lock_timeout_s
        self._limits = Limits(history_columns, flat_columns, flat_columns)
        self._memory_limit = memory_limit

    def __repr__(self) -> str:
        return f"DuckDBWarehouse({self.url!r})"

    @property
    def url(self) -> str:
        """duckdb:/// and the path."""
        return f"duckdb:///{self._path}"

    def check(self, dataset: str, owner: Owner) -> None:
        """Refuse a missing folder, an ambiguous name, another project's dataset, a newer schema."""
        self.read_checked(dataset, owner, ())

    def read_checked(self, dataset: str, owner: Owner, names: Sequence[str]) -> dict[str, pa.Table]:
        """Do `check` and `read_tables` in one opening of the file."""
        folder = self._path.absolute().parent
        if not folder.is_dir():
            raise WarehouseRefused(
                f"{folder} does not exist: create it, or give an absolute path with four slashes "
                "(duckdb:////data/x.duckdb).",
                path=self.url,
            )
        if not os.access(folder, os.W_OK):
            raise WarehouseRefused(
                f"{folder} is read-only, and no file can be made there. {GIVE_RIGHTS}",
                path=self.url,
            )
        self._refuse_ambiguous(dataset)
        if not self._path.exists():
            self._try_options()
            return self.read_tables(dataset, names)
        with self._connection(read_only=False) as connection:
            layout = Layout.read(self._session(connection), dataset)
            layout.check_owner(owner)
            return read_tables(layout, names)

    def read_tables(self, dataset: str, names: Sequence[str]) -> dict[str, pa.Table]:
        """Return whole tables in their canonical schema; missing ones are empty."""
        if not self._path.exists():
            return {name: TABLES[name].schema.empty_table() for name in names}
        with self._connection(read_only=True) as connection:
            layout = Layout.read(self._session(connection), dataset, names)
            return read_tables(layout, names)

    def query(self, sql: str, dataset: str | None = None) -> pa.Table:
        """Run one SELECT (a PIVOT is one) and return its rows.

        Raises:
            WarehouseRefused: the SQL is wrong, or no single SELECT (retry: never).
        """
        if not self._path.exists():
            raise WarehouseRefused(f"{self.url} does not exist: export into it first.")
        with self._connection(read_only=True) as connection:
            if dataset is not None:
                if not self._session(connection).columns_of(dataset, TABLES):
                    raise WarehouseRefused(f"{self.url} has no dataset {dataset!r}.")
                connection.execute(f"SET schema = {literal(quoted(dataset))}")
            return select_only(connection, sql)

    def commit(self, batch: Batch) -> Committed:
        """Write a batch in one transaction; new tables and columns come in the same one.

        Exports of one process take turns; one of another process is waited for. Staged rows are
        read by DuckDB itself, files in parts: beside rows that are in memory already, it takes its
        `memory_limit` and a little.
        """
        return self.commit_made(batch.dataset, lambda read: batch)

    def commit_made(self, dataset: str, make: Callable[[Read], Batch]) -> Committed:
        """As `commit`, of the batch that `make` gives for what it reads in the transaction."""
        self._refuse_ambiguous(dataset)
        with self._transaction() as connection:
            layout = Layout.read(self._session(connection), dataset)
            return write_batch(layout, make(partial(read_tables, layout)))

    def append(
        self, dataset: str, table_name: str, rows: pa.Table, *, owner: Owner | None = None
    ) -> None:
        """Append rows to a journal table in one transaction; `owner` is checked and recorded."""
        self._refuse_ambiguous(dataset)
        with self._transaction() as connection:
            write_journal(self._session(connection), dataset, table_name, rows, owner)

    def _refuse_ambiguous(self, dataset: str) -> None:
        check_name(dataset)
        # DuckDB names the database by the file, up to its first dot.
        if dataset.lower() == self._path.name.split(".")[0].lower():
            raise WarehouseRefused(
                f"The dataset {dataset!r} would have the name of its DuckDB file, which SQL cannot "
                f"tell apart: choose another file name, or {OTHER_DATASET}.",
                path=self.url,
            )

    def _session(self, connection: duckdb.DuckDBPyConnection) -> DuckDBSession:
        return DuckDBSession(connection, self._limits)

    @contextmanager
    def _transaction(self) -> Iterator[duckdb.DuckDBPyConnection]:
        with self._turn(), self._connection(read_only=False) as connection:
            connection.begin()
            try:
                yield connection
            except BaseException:
                # A statement that the disk refused may have ended the transaction already.
                with suppress(duckdb.Error):
                    connection.rollback()
                raise
            connection.commit()

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """One writer of this process at a time; DuckDB would refuse the second one's commit."""
        lock = _turn_of(self._path)
        if not lock.acquire(timeout=self._lock_timeout_s):
            raise busy(None, self.url, self._lock_timeout_s)
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def _connection(self, *, read_only: bool) -> Iterator[duckdb.DuckDBPyConnection]:
        with self._set_up(self._open(read_only)) as connection:
            yield connection

    def _try_options(self) -> None:
        """Refuse now what the first commit into a new file would refuse."""
        with self._set_up(duckdb.connect()):
            pass

    @contextmanager
    def _set_up(self, connection: duckdb.DuckDBPyConnection) -> Iterator[duckdb.DuckDBPyConnection]:
        try:
            connection.execute("SET TimeZone = 'UTC'; SET preserve_insertion_order = false")
            self._limit_memory(connection)
            yield connection
        except duckdb.Error as exc:
            raise self._mapped(exc) from exc
        finally:
            connection.close()

    def _limit_memory(self, connection: duckdb.DuckDBPyConnection) -> None:
        try:
            connection.execute(f"SET memory_limit = {literal(self._memory_limit)}")
        except duckdb.Error as exc:
            raise WarehouseRefused(
                f"{self.url}: option memory_limit={self._memory_limit!r}: give a size, such as 4GB "
                f"({exc}).",
                exc,
                path=self.url,
            ) from exc

    def _open(self, read_only: bool) -> duckdb.DuckDBPyConnection:
        # None but DuckDB may open the file here, not even to look at it: the kernel drops all locks
        # of a process on a file when the process closes it once.
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
        return mapped(exc, self.url, self._lock_timeout_s, self._memory_limit)


_turns: dict[Path, threading.Lock] = {}
_turns_lock = threading.Lock()


def _turn_of(path: Path) -> threading.Lock:
    with _turns_lock:
        return _turns.setdefault(path.resolve(), threading.Lock())
