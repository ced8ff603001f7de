"""Which files of a dataset are live: one JSON file for each commit, never changed.

`_manifests/000000000017.json` is the seventeenth commit. The highest number is what readers go by;
it is created only if there is none, so two writers cannot both make one commit.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from wb_ops.errors import WarehouseRefused
from wb_ops.warehouse.lake.locks import Overtaken
from wb_ops.warehouse.lake.storage import Storage

FORMAT_VERSION = 1
# Readers that hold an older manifest have this many commits' time to finish.
KEPT = 10

_FOLDER = "_manifests"


@dataclass(frozen=True, slots=True)
class Retired:
    """A file that left the tables with the commit `version`."""

    path: str
    version: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """One state of a dataset.

    Attributes:
        version: 1 for the first commit; 0 is a dataset that is not there yet.
        kind: "parquet" or "delta".
        load_id: the load that made this commit.
        tables: table -> what its format needs to find the rows.
        retired: files that no table has any more and that older manifests may still name.
    """

    version: int
    kind: str
    load_id: str = ""
    tables: Mapping[str, Any] = field(default_factory=dict)
    retired: Sequence[Retired] = ()

    def dumps(self) -> bytes:
        """The text that is stored."""
        return json.dumps({"format_version": FORMAT_VERSION, **asdict(self)}).encode()

    @classmethod
    def loads(cls, text: bytes) -> Manifest:
        """Read the stored text.

        Raises:
            WarehouseRefused: a newer wb_ops wrote it (retry: never).
        """
        values = json.loads(text)
        if values.pop("format_version") > FORMAT_VERSION:
            raise WarehouseRefused("A newer wb_ops wrote this dataset: upgrade wb_ops.")
        retired = [Retired(**one) for one in values.pop("retired")]
        return cls(**values, retired=retired)


def read_manifest(storage: Storage, folder: str, kind: str) -> Manifest:
    """Read the newest manifest; version 0 where there is none.

    Raises:
        WarehouseRefused: the folder holds a dataset of the other kind, or a newer one.
    """
    while True:
        paths = manifest_paths(storage, folder)
        if not paths:
            return Manifest(0, kind)
        try:
            manifest = Manifest.loads(storage.read(paths[-1]))
        except FileNotFoundError:
            continue  # listed just before a writer removed it: there are newer ones
        if manifest.kind != kind:
            raise WarehouseRefused(
                f"{folder} holds {manifest.kind} tables: open it as {manifest.kind}://, or choose "
                "another folder."
            )
        return manifest


def publish(storage: Storage, folder: str, manifest: Manifest) -> None:
    """Make a commit visible, all of it at once; Overtaken where another one came first."""
    try:
        storage.create(f"{folder}/{_FOLDER}/{manifest.version:012d}.json", manifest.dumps())
    except FileExistsError as exc:
        raise Overtaken from exc


def manifest_paths(storage: Storage, folder: str) -> list[str]:
    """Name the manifests that are kept, the newest last."""
    paths = storage.list_files(f"{folder}/{_FOLDER}")
    return sorted(path for path in paths if path.endswith(".json"))
