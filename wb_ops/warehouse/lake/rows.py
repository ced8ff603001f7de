"""Which rows of a table go, as an Arrow mask and as the predicate of a Delta write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import or_

import pyarrow as pa
import pyarrow.compute as pc

from wb_ops.tables.schemas import TABLES
from wb_ops.warehouse.sql import literal, literals


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows whose `column` has one of the values, and that fit the rest.

    Attributes:
        column, values: a text column, and what it may be.
        also: another text column and the one value that it must have.
        from_step: the lowest `_step`.
    """

    column: str
    values: tuple[str, ...]
    also: tuple[str, str] | None = None
    from_step: int | None = None

    @property
    def columns(self) -> list[str]:
        """The columns that decide."""
        more = [self.also[0]] if self.also else []
        return [self.column, *more, *(["_step"] if self.from_step is not None else [])]

    def mask(self, batch: pa.RecordBatch) -> pa.Array:
        """Tell which rows these are; never null."""
        found = pc.is_in(batch[self.column], pa.array(self.values, pa.string()))
        if self.also is not None:
            found = pc.and_(found, pc.equal(batch[self.also[0]], self.also[1]).fill_null(False))
        if self.from_step is not None:
            found = pc.and_(found, pc.greater_equal(batch["_step"], self.from_step))
        return found

    def expression(self) -> pc.Expression:
        """The same as a filter of a scan."""
        found = pc.field(self.column).isin(list(self.values))
        if self.also is not None:
            found &= pc.field(self.also[0]) == self.also[1]
        if self.from_step is not None:
            found &= pc.field("_step") >= self.from_step
        return found

    def sql(self) -> str:
        """The same as a predicate."""
        tests = [f"{self.column} IN ({literals(self.values)})"]
        if self.also is not None:
            tests.append(f"{self.also[0]} = {literal(self.also[1])}")
        if self.from_step is not None:
            tests.append(f"_step >= {self.from_step}")
        return f"({' AND '.join(tests)})"


def any_mask(some: Sequence[Rows], batch: pa.RecordBatch) -> pa.Array:
    """Tell which rows of a batch are among `some`, which are not none."""
    return reduce(pc.or_, [one.mask(batch) for one in some])


def any_expression(some: Sequence[Rows]) -> pc.Expression | None:
    """A filter for rows that are among `some`; None for all rows."""
    return reduce(or_, [one.expression() for one in some]) if some else None


def of_runs(run_ids: Sequence[str]) -> list[Rows]:
    """All rows of these runs."""
    return [Rows("run_id", tuple(run_ids))] if run_ids else []


def of_tails(tails: Mapping[str, int]) -> list[Rows]:
    """The rows of each run from its step on."""
    by_step: dict[int, list[str]] = {}
    for run_id, step in tails.items():
        by_step.setdefault(step, []).append(run_id)
    return [Rows("run_id", tuple(some), from_step=step) for step, some in by_step.items()]


def of_keys(table_name: str, rows: pa.Table) -> list[Rows]:
    """The rows that have the keys of these."""
    first, *rest = TABLES[table_name].key
    if not rest:
        return [Rows(first, tuple(rows[first].to_pylist()))] if rows.num_rows else []
    by_rest: dict[str, list[str]] = {}
    for value, other in zip(rows[first].to_pylist(), rows[rest[0]].to_pylist(), strict=True):
        by_rest.setdefault(other, []).append(value)
    return [Rows(first, tuple(some), also=(rest[0], other)) for other, some in by_rest.items()]
