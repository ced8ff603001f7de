"""What DuckDB says of its file, as our errors with their remedy."""

from __future__ import annotations

import re

import duckdb

from wb_ops.errors import WarehouseBusy, WarehouseError, WarehouseRefused, WarehouseUnavailable
from wb_ops.warehouse.base import BUSY_RETRY_S, FULL_DISK, MAKE_ROOM

GIVE_RIGHTS = "Let this user write there, or choose another place."
NO_DUCKDB_FILE = (
    "It is no DuckDB file, or a damaged one: choose another file, or restore this one from a copy."
)
_HELD = re.compile("lock on file|different configuration")
# What no later try can read; whatever else DuckDB has to say of input and output may pass.
_REMEDIES = (
    (re.compile("permission denied|read-only file system", re.IGNORECASE), GIVE_RIGHTS),
    (re.compile("replaying WAL file"), "Restore the file, and the .wal beside it, from a copy."),
    (re.compile(": is a directory", re.IGNORECASE), "It is a folder: give a file in it."),
    (
        re.compile("created with a newer version of DuckDB"),
        "Upgrade duckdb here, or choose another file.",
    ),
    (
        re.compile("Trying to read a database file with"),
        "Convert it with the DuckDB that wrote it, or choose another file.",
    ),
    (
        re.compile(
            "not a valid DuckDB|not read enough bytes|Corrupt database|load metadata pointer"
            "|sqlite_scanner"
        ),
        NO_DUCKDB_FILE,
    ),
)
_REFUSED = re.compile("read-only|cannot open", re.IGNORECASE)


def mapped(exc: duckdb.Error, url: str, lock_timeout_s: float, memory_limit: str) -> WarehouseError:
    """Give our error for DuckDB's."""
    text = str(exc)
    # Before all else: a commit that the disk refuses is a TransactionException, too.
    if FULL_DISK.search(text):
        return WarehouseRefused(f"{url}: {text}. {MAKE_ROOM}", exc, path=url)
    if isinstance(exc, duckdb.TransactionException) or _HELD.search(text):
        return busy(exc, url, lock_timeout_s)
    for words, remedy in _REMEDIES:
        if _is_of_the_file(exc) and words.search(text):
            return WarehouseRefused(f"{url}: {text.splitlines()[0]}. {remedy}", exc, path=url)
    if isinstance(exc, duckdb.IOException) and not _REFUSED.search(text):
        return WarehouseUnavailable(f"{url}: {text}", exc, path=url)
    if isinstance(exc, duckdb.OutOfMemoryException) and "temp_directory" not in text:
        # Its own advice is about statements that nobody here can give.
        text = (
            f"{text.splitlines()[0]}. Give DuckDB more than {memory_limit}: put ?memory_limit=4GB "
            "behind the URL."
        )
    return WarehouseRefused(f"{url}: {text}", exc, path=url)


def _is_of_the_file(exc: duckdb.Error) -> bool:
    # What is damaged has no class of its own, or is a failed assertion.
    return isinstance(exc, duckdb.IOException | duckdb.InternalException) or type(exc) in (
        duckdb.Error,
        duckdb.FatalException,
    )


def busy(exc: Exception | None, url: str, lock_timeout_s: float) -> WarehouseBusy:
    """Somebody else writes; the batch can be committed again."""
    return WarehouseBusy(
        f"{url} is held by another writer for longer than {lock_timeout_s:g} s, or changed under "
        "this one.",
        exc,
        retry_after_s=BUSY_RETRY_S,
        path=url,
    )
