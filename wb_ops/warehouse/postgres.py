"""A PostgreSQL database as warehouse. Tables, data, receipts and state move in one transaction."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import adbc_driver_manager
import adbc_driver_postgresql.dbapi as adbc
import pyarrow as pa

from wb_ops.errors import WarehouseBusy, WarehouseError, WarehouseRefused, WarehouseUnavailable
from wb_ops.warehouse.base import (
    BUSY_RETRY_S,
    OTHER_DATASET,
    Batch,
    Committed,
    Owner,
    Read,
    Warehouse,
)
from wb_ops.warehouse.layout import Layout, check_name, read_tables
from wb_ops.warehouse.postgres_session import PostgresSession, select_only
from wb_ops.warehouse.sql import MAX_NAME_BYTES, Limits, literal, quoted
from wb_ops.warehouse.urls import passwords_in
from wb_ops.warehouse.writing import write_batch, write_journal

CONNECT_TIMEOUT_S = 10
# A row must fit into a page of 8 kB: a number takes 8 bytes, a text at least the 18 of a pointer.
MAX_COLUMNS = 500
MAX_FLAT_TEXTS = 300

_PUBLIC_OPTIONS = ("host", "port", "dbname", "user")
_BUSY = ("55P03", "40P01", "40001")  # lock timeout, deadlock, serialization
_UNAVAILABLE = ("08", "53200", "53300", "57P")  # connection, memory, too many clients, shutdown
_TOO_WIDE = ("54000", "54011")  # a row that is too long, too many columns
FEWER_COLUMNS = (
    "Put ?history_columns=300&flat_columns=300, or less, behind the URL; where the columns are "
    f"there already, {OTHER_DATASET}."
)
# Until there is a connection libpq says in words what is wrong.
_WILL_NOT_LET_IN = (
    "authentication failed",
    "no password supplied",
    "does not exist",
    "pg_hba.conf",
    "permission denied for database",
    "not permitted to log in",
    "invalid ",
    "does not support SSL",
)


class PostgresWarehouse(Warehouse):
    """One database. It is connected to for the length of one call."""

    def __init__(
        self,
        url: str,
        *,
        lock_timeout_s: float,
        history_columns: int = MAX_COLUMNS,
        flat_columns: int = MAX_COLUMNS,
    ) -> None:
        self._uri = url
        self._lock_timeout_s = lock_timeout_s
        self._limits = Limits(history_columns, flat_columns, min(flat_columns, MAX_FLAT_TEXTS))

    def __repr__(self) -> str:
        return f"PostgresWarehouse({self.url!r})"

    @property
    def url(self) -> str:
        """The URL without password and without other options."""
        parts = urlsplit(self._uri)
        user, _, place = parts.netloc.rpartition("@")
        name = user.partition(":")[0]
        shown = [pair for pair in parse_qsl(parts.query) if pair[0] in _PUBLIC_OPTIONS]
        place = f"{name}@{place}" if name else place
        query = f"?{urlencode(shown, safe='/')}" if shown else ""
        return f"{parts.scheme}://{place}{parts.path}{query}"

    def check(self, dataset: str, owner: Owner) -> None:
        """Refuse a name, another project's dataset, a newer schema, a user who may not write."""
        self.read_checked(dataset, owner, ())

    def read_checked(self, dataset: str, owner: Owner, names: Sequence[str]) -> dict[str, pa.Table]:
        """Do `check` and `read_tables` in one connection."""
        self._refuse_name(dataset)
        with self._connection() as connection:
            session = self._session(connection)
            layout = Layout.read(session, dataset)
            layout.check_owner(owner)
            self._check_rights(session, dataset)
            return read_tables(layout, names)

    def read_tables(self, dataset: str, names: Sequence[str]) -> dict[str, pa.Table]:
        """Return whole tables in their canonical schema, all of one commit; missing are empty."""
        with self._connection() as connection:
            # One snapshot: a commit between two tables would show one before and one after it.
            self._make_read_only(connection, "ISOLATION LEVEL REPEATABLE READ, ")
            return read_tables(Layout.read(self._session(connection), dataset, names), names)

    def query(self, sql: str, dataset: str | None = None) -> pa.Table:
        """Run one SELECT and return its rows, in a transaction that cannot write.

        Names without a schema are looked up in `dataset`, then among the shared views. `json`
        comes as text; `numeric` as int64 where every value is such an integer, else as double.

        Raises:
            WarehouseRefused: the SQL is wrong, or no single SELECT (retry: never).
        """
        with self._connection() as connection:
            self._make_read_only(connection)
            session = self._session(connection)
            if dataset is not None and not session.schema_exists(dataset):
                raise WarehouseRefused(f"{self.url} has no dataset {dataset!r}.")
            path = [quoted(name) for name in (dataset, "wb_ops", "public") if name is not None]
            session.execute(f"SET LOCAL search_path = {', '.join(path)}")
            return select_only(connection, sql)

    def commit(self, batch: Batch) -> Committed:
        """Write a batch in one transaction; new tables and columns come in the same one.

        Writers of one dataset take turns, by an advisory lock. Staged files are copied part by
        part: memory holds one part.
        """
        return self.commit_made(batch.dataset, lambda read: batch)

    def commit_made(self, dataset: str, make: Callable[[Read], Batch]) -> Committed:
        """As `commit`, of the batch that `make` gives for what it reads in the transaction."""
        self._refuse_name(dataset)
        with self._transaction(dataset) as session:
            layout = Layout.read(session, dataset)
            return write_batch(layout, make(partial(read_tables, layout)))

    def append(
        self, dataset: str, table_name: str, rows: pa.Table, *, owner: Owner | None = None
    ) -> None:
        """Append rows to a journal table in one transaction; `owner` is checked and recorded."""
        self._refuse_name(dataset)
        with self._transaction(dataset) as session:
            write_journal(session, dataset, table_name, rows, owner)

    def _refuse_name(self, dataset: str) -> None:
        check_name(dataset)
        if len(dataset.encode()) > MAX_NAME_BYTES or dataset.startswith("pg_"):
            raise WarehouseRefused(
                f"PostgreSQL takes no schema called {dataset!r}: {OTHER_DATASET}, of at most "
                f"{MAX_NAME_BYTES} bytes, that does not begin with pg_.",
                path=self.url,
            )

    def _check_rights(self, session: PostgresSession, dataset: str) -> None:
        right = (
            f"has_schema_privilege({literal(dataset)}, 'CREATE')"
            if session.schema_exists(dataset)
            else "has_database_privilege(current_database(), 'CREATE')"
        )
        found = session.select(
            f"SELECT {right} AS may_write, current_setting('transaction_read_only') AS is_read_only"
        ).to_pylist()[0]
        if not found["may_write"] or found["is_read_only"] == "on":
            raise WarehouseRefused(
                f"{self.url} cannot be written to by this user (schema {dataset!r}): grant CREATE, "
                "or connect to a server that is not read-only.",
                path=self.url,
            )

    def _session(self, connection: adbc.Connection) -> PostgresSession:
        return PostgresSession(connection, self._limits)

    @staticmethod
    def _make_read_only(connection: adbc.Connection, isolation: str = "") -> None:
        with connection.cursor() as cursor:
            cursor.execute(f"SET TRANSACTION {isolation}READ ONLY")

    @contextmanager
    def _transaction(self, dataset: str) -> Iterator[PostgresSession]:
        with self._connection() as connection:
            session = self._session(connection)
            # Whatever the server's default: what is read after the wait is what the one before
            # has committed.
            session.execute("SET TRANSACTION ISOLATION LEVEL READ COMMITTED")
            timeout_ms = max(int(self._lock_timeout_s * 1000), 1)
            session.execute(f"SET LOCAL lock_timeout = {timeout_ms}")
            session.lock(f"dataset {dataset}")
            yield session
            connection.commit()

    @contextmanager
    def _connection(self) -> Iterator[adbc.Connection]:
        """A transaction that is rolled back unless it is committed."""
        try:
            with adbc.connect(self._libpq_uri()) as connection:
                yield connection
        except adbc_driver_manager.Error as exc:
            error = self._mapped(exc)
            # The driver's own words are kept from the traceback where they show the password.
            raise error from (exc if self._hidden(str(exc)) == str(exc) else None)

    def _libpq_uri(self) -> str:
        if "connect_timeout=" in self._uri:
            return self._uri
        sign = "&" if urlsplit(self._uri).query else "?"
        return f"{self._uri}{sign}connect_timeout={CONNECT_TIMEOUT_S}"

    def _mapped(self, exc: adbc_driver_manager.Error) -> WarehouseError:
        # The driver quotes the whole statement before or behind the server's own words.
        words = str(exc).rpartition("ERROR:  ")[2].partition("\nQuery was:")[0]
        text = self._hidden(words).strip()
        message = f"{self.url}: {text}"
        state = exc.sqlstate or ""
        if state in _BUSY:
            return WarehouseBusy(
                f"{self.url} is held by another writer for longer than {self._lock_timeout_s:g} s: "
                f"{text}",
                retry_after_s=BUSY_RETRY_S,
                path=self.url,
            )
        is_connecting = not state and not any(words in text for words in _WILL_NOT_LET_IN)
        if state.startswith(_UNAVAILABLE) or is_connecting:
            return WarehouseUnavailable(message, path=self.url)
        if state in _TOO_WIDE:
            message += f". {FEWER_COLUMNS}"
        return WarehouseRefused(message, path=self.url)

    def _hidden(self, text: str) -> str:
        """Take passwords out of a text."""
        secrets = passwords_in(self._uri)
        forms = secrets | {quote(secret, safe="") for secret in secrets}
        for form in sorted(forms, key=len, reverse=True):
            text = text.replace(form, "***")
        return text
