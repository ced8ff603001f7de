"""Which rows and columns of a history are wanted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import pyarrow as pa
import pyarrow.compute as pc

from wb_ops.errors import InvalidRequest
from wb_ops.tables.columns import as_type
from wb_ops.tables.history import OWN_COLUMNS

Require = Literal["any", "all"]


@dataclass(frozen=True, slots=True)
class Selection:
    """Which rows and columns of a history are wanted.

    `keys` None means all; else rows that hold any (or all: `require`) of the keys.
    `min_step` is included, `max_step` is not.

    Raises:
        InvalidRequest: `require` is neither (retry: never).
    """

    keys: tuple[str, ...] | None = None
    min_step: int | None = None
    max_step: int | None = None
    require: Require = "any"

    def __post_init__(self) -> None:
        if self.require not in get_args(Require):
            raise InvalidRequest(f"require={self.require!r}: give 'any' or 'all'.")

    @property
    def columns(self) -> tuple[str, ...] | None:
        """The columns to read, or None for all."""
        return None if self.keys is None else (*OWN_COLUMNS, *self.keys)

    @property
    def is_whole(self) -> bool:
        """Whether rows of all steps are wanted."""
        return self.min_step is None and self.max_step is None

    def touches(self, first_step: int, last_step: int) -> bool:
        """Whether any of these steps is wanted."""
        starts_late = self.max_step is not None and first_step >= self.max_step
        ends_early = self.min_step is not None and last_step < self.min_step
        return not (starts_late or ends_early)

    def within(self, table: pa.Table) -> pa.Table:
        """Keep the rows inside min_step..max_step."""
        if self.min_step is not None:
            table = table.filter(pc.greater_equal(_steps(table), self.min_step))
        if self.max_step is not None:
            table = table.filter(pc.less(_steps(table), self.max_step))
        return table


def _steps(table: pa.Table) -> pa.ChunkedArray:
    return as_type(table["_step"], pa.int64())


EVERYTHING = Selection()
