"""What every warehouse does, and the one unit that is written: a batch."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeAlias

if TYPE_CHECKING:
    import pyarrow as pa

# The warehouse names dynamic columns inside its transaction, where nobody else can take a name.
# Until then a column carries its key in hex, which no case rule can make equal to another.
_NUMBER = "metric:"
_TEXT = "text:"


def staged_name(key: str) -> str:
    """The DOUBLE column of a metric, or of a leaf of config or summary, before it has its name."""
    return _NUMBER + key.encode().hex()


def staged_text(key: str) -> str:
    """The text column of a leaf of config or summary, before it has its name."""
    return _TEXT + key.encode().hex()


def staged_key(column: str) -> str | None:
    """The key of a dynamic column, or None for one of the fixed columns."""
    kind, colon, digits = column.partition(":")
    if f"{kind}{colon}" not in (_NUMBER, _TEXT):
        return None
    return bytes.fromhex(digits).decode()


@dataclass(frozen=True, slots=True)
class Owner:
    """The W&B project whose runs a dataset holds."""

    entity: str
    project: str

    def __str__(self) -> str:
        return f"{self.entity}/{self.project}"


# Staged rows of one table: a parquet file, or an Arrow table in memory.
StagedPart: TypeAlias = "Path | pa.Table"


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows that become visible together, or not at all.

    Attributes:
        dataset, owner: where, and whose; a dataset of another project is refused.
        load_id: a batch of a load that is committed again replaces itself.
        runs: table `runs`; rows of the same run_id are replaced.
        flat: rows of `runs_flat` for these runs: run_id, dynamic columns, _load_id.
        history: staged rows of table `history`: fixed and dynamic columns. A metric past the cap
            of the warehouse goes to `history_long` instead.
        replaced: runs whose history rows (both tables) are deleted before the staged ones are
            inserted.
        tails: runs whose staged rows begin at this step: only rows from it on are deleted.
        system_metrics: staged rows of table `system_metrics`.
        replaced_system: runs whose system metrics are deleted before those are inserted.
        deleted: runs that are gone on the server and are marked so.
        meta: rows of `_wb_receipts`, `_wb_loads`, `_wb_state`, replaced by their key.
    """

    dataset: str
    owner: Owner
    load_id: str
    runs: pa.Table
    flat: pa.Table | None = None
    history: Sequence[StagedPart] = ()
    replaced: Sequence[str] = ()
    tails: Mapping[str, int] = field(default_factory=dict)
    system_metrics: Sequence[StagedPart] = ()
    replaced_system: Sequence[str] = ()
    deleted: Sequence[str] = ()
    meta: Mapping[str, pa.Table] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Committed:
    """How many rows a commit inserted, by the warehouse's own count.

    Attributes:
        runs: rows of `runs`.
        history_rows: rows of `history`.
        new_columns: names of the columns that `history` got.
        long_rows: rows of `history_long`, a row for each value.
        system_rows: rows of `system_metrics`.
    """

    runs: int
    history_rows: int
    new_columns: tuple[str, ...] = ()
    long_rows: int = 0
    system_rows: int = 0


# What systems and libraries say of a disk that takes no more.
FULL_DISK = re.compile(r"no space left|file too large|disk quota|not enough.*disk", re.IGNORECASE)
MAKE_ROOM = "The disk takes no more: make room, then try again; nothing of this is written."
# Said to programs and to people on the command line.
OTHER_DATASET = "give another dataset (dataset=, --dataset)"
ONE_SELECT = "A query reads: give one SELECT, nothing else."
# When a warehouse that another writer held is worth another try.
BUSY_RETRY_S = 15.0

# Gives whole tables of a dataset, as `Warehouse.read_tables`.
Read = Callable[[Sequence[str]], dict[str, "pa.Table"]]


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

    def read_checked(self, dataset: str, owner: Owner, names: Sequence[str]) -> dict[str, pa.Table]:
        """Do `check` and `read_tables`; a warehouse that is slow to open is opened once."""
        ...

    def query(self, sql: str, dataset: str | None = None) -> pa.Table:
        """Run one SELECT, nothing else; names without a schema are looked up in `dataset`."""
        ...

    def commit(self, batch: Batch) -> Committed:
        """Write a batch in one transaction."""
        ...

    def commit_made(self, dataset: str, make: Callable[[Read], Batch]) -> Committed:
        """Write the batch that `make` gives for what it reads; it must send no request.

        Where the warehouse has transactions, what is read is of the same one.
        """
        ...

    def append(
        self, dataset: str, table_name: str, rows: pa.Table, *, owner: Owner | None = None
    ) -> None:
        """Append rows to a journal table in one transaction; `owner` is checked and recorded."""
        ...
