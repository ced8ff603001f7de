"""What every warehouse does, and the one unit that is written: a batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import pyarrow as pa

# The warehouse names metric columns inside its transaction, where nobody else can take a name.
# Until then a column carries its key in hex, which no case rule can make equal to another.
_STAGED = "metric:"


def staged_name(key: str) -> str:
    """The column of a metric in a staged file."""
    return _STAGED + key.encode().hex()


def staged_key(column: str) -> str | None:
    """The metric of a staged file's column, or None for one of the fixed columns."""
    if not column.startswith(_STAGED):
        return None
    return bytes.fromhex(column.removeprefix(_STAGED)).decode()


@dataclass(frozen=True, slots=True)
class Owner:
    """The W&B project whose runs a dataset holds."""

    entity: str
    project: str

    def __str__(self) -> str:
        return f"{self.entity}/{self.project}"


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows that become visible together, or not at all.

    Attributes:
        dataset, owner: where, and whose; a dataset of another project is refused.
        load_id: a batch of a load that is committed again replaces itself.
        runs: table `runs`; rows of the same run_id are replaced.
        history: staged parquet files of table `history`, each run whole in one file.
        replaced: runs whose history rows are deleted before the staged ones are inserted.
        deleted: runs that are gone on the server and are marked so.
        meta: rows of `_wb_receipts`, `_wb_loads`, `_wb_state`, replaced by their key.
    """

    dataset: str
    owner: Owner
    load_id: str
    runs: pa.Table
    history: Sequence[Path] = ()
    replaced: Sequence[str] = ()
    deleted: Sequence[str] = ()
    meta: Mapping[str, pa.Table] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Committed:
    """How many rows a commit inserted, by the warehouse's own count."""

    runs: int
    history_rows: int
    new_columns: tuple[str, ...] = ()


class Warehouse(Protocol):
    """A place that holds datasets. No connection or lock is held between two calls.

    Every method raises WarehouseBusy (retry: after the wait it carries) while another writer
    holds the warehouse longer than `lock_timeout_s`, WarehouseUnavailable (retry: backoff) if it
    cannot be reached, and WarehouseRefused (retry: never) if it will not take this.
    """

    @property
    def url(self) -> str:
        """Where it is, without any secret."""
        ...

    def check(self, dataset: str, owner: Owner) -> None:
        """Refuse, before anything is read from W&B, what a commit would refuse."""
        ...

    def read_tables(self, dataset: str, names: Sequence[str]) -> dict[str, pa.Table]:
        """Return whole (small) tables in their canonical schema; one that is missing is empty."""
        ...

    def query(self, sql: str, dataset: str | None = None) -> pa.Table:
        """Run a SELECT; names without a schema are looked up in `dataset`."""
        ...

    def commit(self, batch: Batch) -> Committed:
        """Write a batch in one transaction."""
        ...

    def append(
        self, dataset: str, table_name: str, rows: pa.Table, *, owner: Owner | None = None
    ) -> None:
        """Append rows to a journal table in one transaction; `owner` is checked and recorded."""
        ...
