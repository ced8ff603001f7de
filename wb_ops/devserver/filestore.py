"""The files of runs."""

from __future__ import annotations

import hashlib
import sqlite3

from wb_ops.devserver.database import Database
from wb_ops.devserver.wire_time import now_text


class FileStore:
    """The files of runs, as blobs in the database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def write(self, run_pk: int, name: str, content: bytes) -> None:
        """Write a file; one of this name is replaced."""
        digest = hashlib.md5(content, usedforsecurity=False).hexdigest()
        self._database.write(
            "insert into file(run_pk, name, content, md5, updated_at) values(?, ?, ?, ?, ?) "
            "on conflict(run_pk, name) do update set content = excluded.content, "
            "md5 = excluded.md5, updated_at = excluded.updated_at",
            (run_pk, name, content, digest, now_text()),
        )

    def read(self, run_pk: int, name: str) -> bytes | None:
        """A file's content, or None where there is no such file."""
        row = self._database.read_one(
            "select content from file where run_pk = ? and name = ?", (run_pk, name)
        )
        return None if row is None else bytes(row["content"])

    def list_files(self, run_pk: int) -> list[sqlite3.Row]:
        """Name, size, md5 and time of each file in the order they were first written."""
        return self._database.read(
            "select pk, name, length(content) as size_bytes, md5, updated_at from file "
            "where run_pk = ? order by pk",
            (run_pk,),
        )

    def delete(self, pks: list[int]) -> None:
        """Remove files by their keys."""
        self._database.write_many("delete from file where pk = ?", [(pk,) for pk in pks])
