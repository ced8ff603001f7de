"""One state of a dataset as readers see it, and the next one while a writer makes it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pyarrow as pa

from wb_ops.warehouse.lake.changes import Change, Registry
from wb_ops.warehouse.lake.folders import folder_of
from wb_ops.warehouse.lake.manifest import (
    KEPT,
    Manifest,
    Retired,
    manifest_paths,
    publish,
    read_manifest,
)
from wb_ops.warehouse.lake.rows import Rows
from wb_ops.warehouse.lake.storage import Storage
from wb_ops.warehouse.lake.tables import Tables
from wb_ops.warehouse.lake.views import script


@dataclass(frozen=True, slots=True)
class Format:
    """How tables are kept.

    Attributes:
        kind: the word for it in manifests and URLs.
        open_tables: gives the tables of (storage, folder of the dataset, version, load id).
    """

    kind: str
    open_tables: Callable[[Storage, str, int, str], Tables]


class Snapshot:
    """What one manifest names."""

    def __init__(self, storage: Storage, folder: str, format_: Format) -> None:
        self.manifest = read_manifest(storage, folder, format_.kind)
        self._tables = format_.open_tables(storage, folder, self.manifest.version, "")

    def read(self, table_name: str) -> pa.Table:
        """Read the fixed columns of a table."""
        return self._tables.read(table_name, self.manifest.tables.get(table_name))

    def files(self) -> dict[str, list[str]]:
        """Give table -> its parquet files."""
        held = self.manifest.tables
        return {name: self._tables.uris(name, one) for name, one in held.items()}

    def registry(self) -> Registry:
        """The names of its dynamic columns."""
        return Registry(self.read("_wb_columns"))


class NextSnapshot:
    """The state that a writer makes of `before`, under the lock; `publish` shows it to readers."""

    def __init__(
        self, storage: Storage, dataset: str, format_: Format, load_id: str, before: Manifest
    ) -> None:
        self._storage = storage
        self._dataset = dataset
        self._folder = folder_of(dataset)
        self._before = before
        self._version = self._before.version + 1
        self._load_id = load_id
        self._held = dict(self._before.tables)
        self._tables = format_.open_tables(storage, self._folder, self._version, load_id)
        self.rows: dict[str, int] = {}

    def read(self, table_name: str, some: Sequence[Rows] = ()) -> pa.Table:
        """Read the fixed columns of a table, or of some of its rows."""
        return self._tables.read(table_name, self._held.get(table_name), some)

    def registry(self) -> Registry:
        """The names of the dynamic columns that there are."""
        return Registry(self.read("_wb_columns"))

    def apply(self, changes: Sequence[Change]) -> None:
        """Write changes in their order; `rows` counts what was inserted into each table."""
        for change in changes:
            held, rows = self._tables.write(self._held.get(change.table_name), change)
            self._held[change.table_name] = held
            self.rows[change.table_name] = self.rows.get(change.table_name, 0) + rows

    def publish(self) -> None:
        """Make the commit visible; then bring the script up to it and remove what nobody needs."""
        before = self._before
        left = [
            Retired(path, self._version)
            for name, held in before.tables.items()
            for path in sorted(self._tables.retired(held, self._held[name]))
        ]
        retired = [one for one in (*before.retired, *left) if one.version > self._version - KEPT]
        manifest = Manifest(self._version, before.kind, self._load_id, self._held, retired)
        publish(self._storage, self._folder, manifest)
        self._write_script()
        self._clean(manifest)

    def _write_script(self) -> None:
        files = {name: self._tables.uris(name, held) for name, held in self._held.items()}
        text = script(self._dataset, files, self.registry())
        self._storage.replace(f"{self._folder}/views.sql", text)

    def _clean(self, manifest: Manifest) -> None:
        """Remove old manifests, and files that neither a kept one nor a writer at work has."""
        live = {one.path for one in manifest.retired}
        live |= {path for held in self._held.values() for path in self._tables.paths(held)}
        old = manifest_paths(self._storage, self._folder)[:-KEPT]
        self._storage.delete([*old, *self._tables.litter(live)])
