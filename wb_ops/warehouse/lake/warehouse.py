"""A folder as warehouse: files first, then one manifest that makes them all visible."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pyarrow as pa

from wb_ops.errors import WarehouseRefused
from wb_ops.tables.schemas import RUNS
from wb_ops.warehouse.base import Batch, Committed, Owner, Read
from wb_ops.warehouse.lake.changes import Change, plan_changes
from wb_ops.warehouse.lake.failures import failures
from wb_ops.warehouse.lake.folders import dataset_of, folder_of
from wb_ops.warehouse.lake.manifest import manifest_paths
from wb_ops.warehouse.lake.query import run_query
from wb_ops.warehouse.lake.rows import of_runs
from wb_ops.warehouse.lake.snapshot import Format, NextSnapshot, Snapshot
from wb_ops.warehouse.lake.storage import Storage
from wb_ops.warehouse.layout import check_name, check_state, owner_row
from wb_ops.warehouse.sql import Limits
from wb_ops.warehouse.views import ALL_RUNS


class LakeWarehouse:
    """Datasets in one folder, local or on an object store. Writers take turns, readers never wait.

    A reader takes the newest manifest and goes by it alone, so it sees whole commits.
    """

    def __init__(
        self,
        url: str,
        storage: Storage,
        format_: Format,
        limits: Limits,
        *,
        lock_timeout_s: float,
    ) -> None:
        self._url = url
        self._storage = storage
        self._format = format_
        self._limits = limits
        self._lock_timeout_s = lock_timeout_s

    def __repr__(self) -> str:
        return f"LakeWarehouse({self._url!r})"

    @property
    def url(self) -> str:
        """Where it is; it never holds credentials, those come from the environment."""
        return self._url

    def check(self, dataset: str, owner: Owner) -> None:
        """Refuse a place that cannot be written, another project's dataset, a newer schema."""
        self.read_checked(dataset, owner, ())

    def read_tables(self, dataset: str, names: Sequence[str]) -> dict[str, pa.Table]:
        """Return whole tables in their canonical schema, all of one commit."""
        with failures(self._url, self._lock_timeout_s):
            snapshot = self._snapshot(dataset)
            return {name: snapshot.read(name) for name in names}

    def read_checked(self, dataset: str, owner: Owner, names: Sequence[str]) -> dict[str, pa.Table]:
        """Do `check` and `read_tables`, of one commit."""
        with failures(self._url, self._lock_timeout_s):
            check_name(dataset)
            self._storage.check_writable()
            # Writes: nothing else tells whether a bucket may be written.
            self._storage.check_exclusive(folder_of(dataset))
            snapshot = self._snapshot(dataset)
            check_state(snapshot.read("_wb_state"), dataset, owner)
            return {name: snapshot.read(name) for name in names}

    def query(self, sql: str, dataset: str | None = None) -> pa.Table:
        """Run a SELECT with DuckDB over the files of the newest commit.

        Raises:
            WarehouseRefused: the SQL is wrong, is no SELECT, or there is no such dataset
                (retry: never).
        """
        with failures(self._url, self._lock_timeout_s):
            # Opening the others takes time, and only one view needs them.
            is_wide = dataset is None or ALL_RUNS in sql.lower()
            names = {*self._datasets()} if is_wide else set()
            names |= set() if dataset is None else {dataset}
            found = {name: self._snapshot(name) for name in sorted(names)}
            if dataset is not None and not found[dataset].manifest.version:
                raise WarehouseRefused(f"{self._url} has no dataset {dataset!r}.")
            if not found:
                raise WarehouseRefused(f"{self._url} holds no dataset: export into it first.")
            return run_query(self._storage, sql, found, dataset)

    def commit(self, batch: Batch) -> Committed:
        """Write a batch: files, then the manifest that makes them visible, then `views.sql`."""
        return self.commit_made(batch.dataset, lambda read: batch)

    def commit_made(self, dataset: str, make: Callable[[Read], Batch]) -> Committed:
        """As `commit`, of the batch that `make` gives for what it reads under the lock."""
        with self._locked(dataset) as held:
            batch = make(lambda names: {name: held.read(name) for name in names})
            with self._publishing(held, dataset, batch.load_id, batch.owner) as work:
                gone = of_runs(batch.deleted)
                held_runs = work.read("runs", gone) if gone else RUNS.empty_table()
                plan = plan_changes(batch, work.registry(), self._limits, held_runs)
                work.apply(plan.changes)
        return Committed(
            batch.runs.num_rows,
            work.rows.get("history", 0),
            plan.new_columns,
            long_rows=work.rows.get("history_long", 0),
            system_rows=work.rows.get("system_metrics", 0),
        )

    def append(
        self, dataset: str, table_name: str, rows: pa.Table, *, owner: Owner | None = None
    ) -> None:
        """Append rows to a journal table; `owner` is checked and recorded."""
        with self._locked(dataset) as held, self._publishing(held, dataset, "", owner) as work:
            work.apply([Change(table_name, batches=rows.to_batches)])
            if owner is not None and not work.read("_wb_state").num_rows:
                work.apply([Change("_wb_state", batches=owner_row(owner).to_batches)])

    def files(self, dataset: str) -> dict[str, list[str]]:
        """Give table -> the parquet files that are its rows now, as paths or URLs."""
        with failures(self._url, self._lock_timeout_s):
            return self._snapshot(dataset).files()

    @contextmanager
    def _locked(self, dataset: str) -> Iterator[Snapshot]:
        """Hold the lock; gives what is there, which the next commit builds on."""
        check_name(dataset)
        with failures(self._url, self._lock_timeout_s):
            self._storage.check_writable()
            if not manifest_paths(self._storage, folder_of(dataset)):
                # Before the lock, which relies on it as well.
                self._storage.check_exclusive(folder_of(dataset))
            with self._storage.lock(f"{folder_of(dataset)}/_lock", self._lock_timeout_s):
                yield self._snapshot(dataset)

    @contextmanager
    def _publishing(
        self, held: Snapshot, dataset: str, load_id: str, owner: Owner | None
    ) -> Iterator[NextSnapshot]:
        """Publish what the block wrote; under the lock."""
        work = NextSnapshot(self._storage, dataset, self._format, load_id, held.manifest)
        if owner is not None:
            check_state(work.read("_wb_state"), dataset, owner)
        yield work
        work.publish()

    def _snapshot(self, dataset: str) -> Snapshot:
        return Snapshot(self._storage, folder_of(dataset), self._format)

    def _datasets(self) -> list[str]:
        folders = self._storage.list_folders()
        return [dataset_of(one) for one in folders if manifest_paths(self._storage, one)]
