"""The SQLite database: its tables, one connection, one lock."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import orjson

_SCHEMA = """
create table if not exists project(
    pk integer primary key, entity text not null, name text not null, created_at text not null,
    username text, version integer not null default 0, unique(entity, name));
create table if not exists run(
    pk integer primary key autoincrement, project_pk integer not null, storage_id text unique,
    name text not null, display_name text, state text not null, config text not null,
    summary text not null, system_metrics text not null default '{}',
    tags text not null default '[]', notes text, description text, run_group text, job_type text,
    commit_sha text, sweep text, host text, program text, repo text, username text,
    read_only integer not null default 0, stopped integer not null default 0,
    created_at text not null, heartbeat_at text not null, updated_at text not null,
    history_count integer not null default 0, history_version integer not null default 0,
    events_count integer not null default 0, log_count integer not null default 0,
    history_keys text, keys_version integer not null default -1, parquet text not null,
    unique(project_pk, name));
create table if not exists history(
    run_pk integer not null, line integer not null, step integer not null, text text not null,
    primary key(run_pk, line)) without rowid;
create index if not exists history_step on history(run_pk, step);
create table if not exists stream(
    run_pk integer not null, name text not null, line integer not null, text text not null,
    primary key(run_pk, name, line)) without rowid;
create table if not exists file(
    pk integer primary key, run_pk integer not null, name text not null, content blob not null,
    md5 text not null, updated_at text not null, unique(run_pk, name));
create table if not exists sweep(
    pk integer primary key, project_pk integer not null, name text not null, display_name text,
    config text not null, state text not null, description text, run_count_expected integer,
    created_at text not null, updated_at text not null, unique(project_pk, name));
"""


class Database:
    """One SQLite connection that many threads share under a lock.

    Args:
        path: A file, or ``:memory:``.
    """

    def __init__(self, path: str) -> None:
        self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._connection.row_factory = sqlite3.Row
        self._lock = threading.RLock()
        self._connection.execute("pragma journal_mode = wal")
        self._connection.execute("pragma synchronous = off")
        self._connection.executescript(_SCHEMA)

    def read(self, sql: str, parameters: Sequence[object] = ()) -> list[sqlite3.Row]:
        """All rows of a query."""
        with self._lock:
            return self._connection.execute(sql, parameters).fetchall()

    def read_json(self, sql: str, parameters: Sequence[object] = ()) -> tuple[int, str]:
        """How many rows a query has, and its column ``text`` as a JSON list.

        All of it is one value to Python: each row that is fetched would wait for other threads.
        """
        with self._lock:
            found = self._connection.execute(
                f"select count(*), json_group_array(text) from ({sql})", parameters
            )
            count, document = found.fetchone()
        return int(count), str(document)

    def read_texts(self, sql: str, parameters: Sequence[object] = ()) -> list[str]:
        """The column ``text`` of a query."""
        texts: list[str] = orjson.loads(self.read_json(sql, parameters)[1])
        return texts

    def read_one(self, sql: str, parameters: Sequence[object] = ()) -> sqlite3.Row | None:
        """The first row of a query, or None."""
        with self._lock:
            row: sqlite3.Row | None = self._connection.execute(sql, parameters).fetchone()
            return row

    def write(self, sql: str, parameters: Sequence[object] = ()) -> int:
        """Change something; the last inserted row's key."""
        with self._lock:
            return self._connection.execute(sql, parameters).lastrowid or 0

    def write_many(self, sql: str, rows: Iterable[Sequence[object]]) -> None:
        """Change something once for each row, in one transaction."""
        with self.transaction():
            self._connection.executemany(sql, rows)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing; inside another transaction it is a part of that one."""
        with self._lock:
            if self._connection.in_transaction:
                yield
                return
            self._connection.execute("begin immediate")
            try:
                yield
            except BaseException:
                self._connection.execute("rollback")
                raise
            self._connection.execute("commit")

    def clear(self) -> None:
        """Forget everything."""
        with self.transaction():
            for table in ("project", "run", "history", "stream", "file", "sweep"):
                self._connection.execute(f"delete from {table}")

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            self._connection.close()
