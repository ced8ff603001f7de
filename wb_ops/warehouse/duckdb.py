"""A DuckDB file as warehouse. Data, receipts and state move in one transaction."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from wb_ops.errors import WarehouseBusy, WarehouseError, WarehouseRefused, WarehouseUnavailable
from wb_ops.tables.names import assign_names
from wb_ops.tables.schemas import (
    HISTORY,
    SCHEMA_VERSION,
    STATE,
    TABLES,
    check_schema,
    history_schema,
)
from wb_ops.warehouse.base import Batch, Committed, Owner, staged_key

BUSY_RETRY_S = 15.0
_TYPES = {
    pa.string(): "VARCHAR",
    pa.int64(): "BIGINT",
    pa.float64(): "DOUBLE",
    pa.bool_(): "BOOLEAN",
    pa.timestamp("us", tz="UTC"): "TIMESTAMPTZ",
    pa.list_(pa.string()): "VARCHAR[]",
}
# Columns that hold JSON are typed so: people query them with ->> and json_extract.
_JSON_COLUMNS = {"config", "summary", "_extra", "_floats", "old_value", "new_value"}


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
                _check_owner(connection, dataset, owner)

    def read_tables(self, dataset: str, names: Sequence[str]) -> dict[str, pa.Table]:
        """Return whole tables in their canonical schema; missing ones are empty."""
        empty = {name: TABLES[name].schema.empty_table() for name in names}
        if not self._path.exists():
            return empty
        with self._connection(read_only=True) as connection:
            return {
                name: _read(connection, dataset, name)
                if _table_exists(connection, dataset, name)
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
                if not _schema_exists(connection, dataset):
                    raise WarehouseRefused(f"{self.url} has no dataset {dataset!r}.")
                connection.execute(f"SET schema = '{dataset}'")
            return _select(connection, sql)

    def commit(self, batch: Batch) -> Committed:
        """Write a batch in one transaction; new columns come in the same one.

        Exports of one process take turns; one of another process is waited for.
        """
        with self._transaction() as connection:
            _check_owner(connection, batch.dataset, batch.owner)
            _create_tables(connection, batch.dataset)
            runs = _upsert(connection, batch.dataset, "runs", batch.runs)
            _delete(connection, batch.dataset, "history", batch.replaced)
            rows = 0
            new_columns: list[str] = []
            for staged in _by_columns(batch.history):
                new_columns += _add_columns(connection, batch.dataset, staged)
                rows += _insert_history(connection, batch.dataset, staged)
            _mark_deleted(connection, batch.dataset, batch.deleted, batch.load_id)
            for name, table in batch.meta.items():
                _upsert(connection, batch.dataset, name, table)
            return Committed(runs, rows, tuple(new_columns))

    def append(
        self, dataset: str, table_name: str, rows: pa.Table, *, owner: Owner | None = None
    ) -> None:
        """Append rows to a journal table in one transaction; `owner` is checked and recorded."""
        with self._transaction() as connection:
            _create_tables(connection, dataset)
            if owner is not None:
                _check_owner(connection, dataset, owner)
                _record_owner(connection, dataset, owner)
            _insert(connection, dataset, table_name, rows)

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


def _quoted(*names: str) -> str:
    return ".".join('"' + name.replace('"', '""') + '"' for name in names)


def _create_tables(connection: duckdb.DuckDBPyConnection, dataset: str) -> None:
    connection.execute(f"CREATE SCHEMA IF NOT EXISTS {_quoted(dataset)}")
    for table in TABLES.values():
        columns = ", ".join(f"{_quoted(field.name)} {_sql_type(field)}" for field in table.schema)
        connection.execute(f"CREATE TABLE IF NOT EXISTS {_quoted(dataset, table.name)} ({columns})")


def _sql_type(field: pa.Field) -> str:
    return "JSON" if field.name in _JSON_COLUMNS else _TYPES[field.type]


def _schema_exists(connection: duckdb.DuckDBPyConnection, dataset: str) -> bool:
    return _exists(
        connection,
        "SELECT 1 FROM duckdb_schemas() WHERE lower(schema_name) = lower(?) AND database_name = "
        "current_database()",
        dataset,
    )


def _table_exists(connection: duckdb.DuckDBPyConnection, dataset: str, name: str) -> bool:
    return _exists(
        connection,
        "SELECT 1 FROM duckdb_tables() WHERE lower(schema_name) = lower(?) AND table_name = ? AND "
        "database_name = current_database()",
        dataset,
        name,
    )


def _exists(connection: duckdb.DuckDBPyConnection, sql: str, *values: str) -> bool:
    # All of it: a result that is not read to its end blocks the connection.
    return bool(connection.execute(sql, list(values)).fetchall())


def _check_owner(connection: duckdb.DuckDBPyConnection, dataset: str, owner: Owner) -> None:
    if not _table_exists(connection, dataset, "_wb_state"):
        return
    state = _read(connection, dataset, "_wb_state")
    owners = {Owner(row["entity"], row["project"]) for row in state.to_pylist()}
    if others := owners - {owner}:
        raise WarehouseRefused(
            f"The dataset {dataset!r} holds {', '.join(map(str, others))}, not {owner}: "
            "give this project a dataset of its own (dataset=)."
        )
    newest = max(state["schema_version"].to_pylist(), default=SCHEMA_VERSION)
    if newest > SCHEMA_VERSION:
        raise WarehouseRefused(
            f"The dataset {dataset!r} was written by a newer wb_ops (schema {newest}, this one "
            f"writes {SCHEMA_VERSION}): upgrade wb_ops."
        )


def _read(connection: duckdb.DuckDBPyConnection, dataset: str, name: str) -> pa.Table:
    schema = TABLES[name].schema
    columns = ", ".join(
        f"CAST({_quoted(field.name)} AS {_TYPES[field.type]}) AS {_quoted(field.name)}"
        for field in schema
    )
    return _select(connection, f"SELECT {columns} FROM {_quoted(dataset, name)}").cast(schema)


def _select(connection: duckdb.DuckDBPyConnection, sql: str) -> pa.Table:
    selected = connection.sql(sql)
    if selected is None:
        raise WarehouseRefused("The SQL returns no rows: give one SELECT.")
    return selected.to_arrow_table()


def _record_owner(connection: duckdb.DuckDBPyConnection, dataset: str, owner: Owner) -> None:
    """Say whose dataset this is where no export has said so yet."""
    if _read(connection, dataset, "_wb_state").num_rows == 0:
        row = {
            "scope": "",
            "entity": owner.entity,
            "project": owner.project,
            "schema_version": SCHEMA_VERSION,
        }
        _insert(connection, dataset, "_wb_state", pa.Table.from_pylist([row], schema=STATE))


def _upsert(connection: duckdb.DuckDBPyConnection, dataset: str, name: str, rows: pa.Table) -> int:
    """Replace rows by the table's key; returns how many were inserted."""
    if rows.num_rows == 0:
        return 0
    key = TABLES[name].key
    match = " AND ".join(f"old.{_quoted(column)} = new.{_quoted(column)}" for column in key)
    with _registered(connection, rows) as new:
        connection.execute(
            f"DELETE FROM {_quoted(dataset, name)} old USING {new} new WHERE {match}"
        )
    return _insert(connection, dataset, name, rows)


def _insert(connection: duckdb.DuckDBPyConnection, dataset: str, name: str, rows: pa.Table) -> int:
    check_schema(rows, TABLES[name].schema)
    return _insert_checked(connection, dataset, name, rows)


def _insert_checked(
    connection: duckdb.DuckDBPyConnection, dataset: str, name: str, rows: pa.Table
) -> int:
    """Insert rows whose schema was checked; returns DuckDB's own count of them."""
    with _registered(connection, rows) as new:
        sql = f"INSERT INTO {_quoted(dataset, name)} BY NAME SELECT * FROM {new}"
        return int(connection.execute(sql).fetchall()[0][0])


def _delete(
    connection: duckdb.DuckDBPyConnection, dataset: str, name: str, run_ids: Sequence[str]
) -> None:
    if run_ids:
        connection.execute(
            f"DELETE FROM {_quoted(dataset, name)} WHERE run_id IN (SELECT unnest(?::VARCHAR[]))",
            [list(run_ids)],
        )


def _mark_deleted(
    connection: duckdb.DuckDBPyConnection, dataset: str, run_ids: Sequence[str], load_id: str
) -> None:
    if run_ids:
        connection.execute(
            f"UPDATE {_quoted(dataset, 'runs')} SET deleted_at = now(), _load_id = ? "
            "WHERE deleted_at IS NULL AND run_id IN (SELECT unnest(?::VARCHAR[]))",
            [load_id, list(run_ids)],
        )


def _by_columns(files: Sequence[Path]) -> Iterator[pa.Table]:
    """Read the staged files, those of equal columns together: one insert for many runs."""
    groups: dict[tuple[str, ...], list[Path]] = {}
    for path in files:
        groups.setdefault(tuple(pq.read_schema(path).names), []).append(path)
    for paths in groups.values():
        yield pa.concat_tables([pq.read_table(path) for path in paths])


def _add_columns(
    connection: duckdb.DuckDBPyConnection, dataset: str, staged: pa.Table
) -> list[str]:
    """Give new metrics their columns; returns the new names."""
    known = _metric_names(connection, dataset)
    keys = [key for name in staged.column_names if (key := staged_key(name)) is not None]
    added = assign_names([key for key in keys if key not in known], known, HISTORY.names)
    for key, column in added.items():
        connection.execute(
            f"ALTER TABLE {_quoted(dataset, 'history')} ADD COLUMN {_quoted(column)} DOUBLE"
        )
        connection.execute(
            f"INSERT INTO {_quoted(dataset, '_wb_columns')} VALUES "
            "('history', ?, ?, 'DOUBLE', now())",
            [column, key],
        )
    return list(added.values())


def _metric_names(connection: duckdb.DuckDBPyConnection, dataset: str) -> dict[str, str]:
    rows = connection.execute(
        f"SELECT original_key, column_name FROM {_quoted(dataset, '_wb_columns')} "
        "WHERE table_name = 'history'"
    ).fetchall()
    return dict(rows)


def _insert_history(connection: duckdb.DuckDBPyConnection, dataset: str, staged: pa.Table) -> int:
    names = _metric_names(connection, dataset)
    columns = {
        name: names[key] for name in staged.column_names if (key := staged_key(name)) is not None
    }
    named = staged.rename_columns([columns.get(name, name) for name in staged.column_names])
    named = named.select(history_schema(sorted(columns.values())).names)
    check_schema(named, history_schema(sorted(columns.values())))
    _check_column_types(connection, dataset, columns.values())
    return _insert_checked(connection, dataset, "history", named)


def _check_column_types(
    connection: duckdb.DuckDBPyConnection, dataset: str, columns: Iterable[str]
) -> None:
    """Refuse a metric column that somebody altered: an INSERT would round without a word."""
    wrong = connection.execute(
        "SELECT column_name, data_type FROM duckdb_columns() "
        "WHERE lower(schema_name) = lower(?) AND database_name = current_database() "
        "AND table_name = 'history' AND data_type <> 'DOUBLE' "
        "AND column_name IN (SELECT unnest(?::VARCHAR[]))",
        [dataset, list(columns)],
    ).fetchall()
    if wrong:
        raise WarehouseRefused(
            f"history.{wrong[0][0]} is {wrong[0][1]}, not DOUBLE: values would be rounded. "
            "Change it back."
        )


@contextmanager
def _registered(connection: duckdb.DuckDBPyConnection, rows: pa.Table) -> Iterator[str]:
    """Make Arrow rows selectable under the returned name."""
    connection.register("_wb_ops_rows", rows)
    try:
        yield "_wb_ops_rows"
    finally:
        connection.unregister("_wb_ops_rows")
