"""What the two formats of a lake, parquet parts and Delta tables, both do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import pyarrow as pa

from wb_ops.warehouse.lake.changes import Change
from wb_ops.warehouse.lake.rows import Rows


class Tables(Protocol):
    """The tables of one dataset, during one commit or read.

    `held` is what the manifest says of a table, None where it has none.
    """

    def write(self, held: Any, change: Change) -> tuple[Any, int]:
        """Apply a change; returns what the next manifest says, and how many rows were inserted.

        Nobody sees them before that manifest.
        """
        ...

    def read(self, table_name: str, held: Any, some: Sequence[Rows] = ()) -> pa.Table:
        """Read the fixed columns of a table: all rows, or those that are among `some`."""
        ...

    def uris(self, table_name: str, held: Any) -> list[str]:
        """Where the parquet files with exactly the table's rows are."""
        ...

    def paths(self, held: Any) -> set[str]:
        """The files that `litter` must leave alone, relative to the dataset."""
        ...

    def retired(self, before: Any, after: Any) -> set[str]:
        """Those of them that a table no longer has."""
        ...

    def litter(self, live: set[str]) -> list[str]:
        """Files that a killed commit left; `live` are those that some manifest may name."""
        ...
