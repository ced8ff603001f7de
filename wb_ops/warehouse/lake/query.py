"""SQL over the files of one commit, by DuckDB in memory."""

from __future__ import annotations

from collections.abc import Mapping
from tempfile import TemporaryDirectory

import duckdb
import pyarrow as pa

from wb_ops.warehouse.duckdb_session import select_only
from wb_ops.warehouse.lake.snapshot import Snapshot
from wb_ops.warehouse.lake.storage import FsspecStorage, Storage
from wb_ops.warehouse.lake.views import make_views, session_of
from wb_ops.warehouse.sql import literal, quoted

# What does not fit goes to a temporary folder; the result itself is in memory beside it.
MEMORY_LIMIT = "1GB"


def run_query(
    storage: Storage, sql: str, snapshots: Mapping[str, Snapshot], dataset: str | None
) -> pa.Table:
    """Run one SELECT with the tables of these datasets as views.

    Raises:
        WarehouseRefused: it is no single SELECT.
    """
    with TemporaryDirectory(prefix="wb_ops-query-") as folder, duckdb.connect() as connection:
        connection.execute(
            "SET TimeZone = 'UTC'; SET preserve_insertion_order = false; "
            f"SET memory_limit = '{MEMORY_LIMIT}'; SET temp_directory = {literal(folder)}"
        )
        if isinstance(storage, FsspecStorage):
            connection.register_filesystem(storage.filesystem)
        session = session_of(connection)
        for name, snapshot in snapshots.items():
            files, registry = snapshot.files(), snapshot.registry()
            make_views(session, name, files, registry, with_all_runs=True)
        if dataset is not None:
            connection.execute(f"SET schema = {literal(quoted(dataset))}")
        return select_only(connection, sql)
