"""What to write back, and from where its values come."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from wb_ops.client.runs import Run
from wb_ops.errors import InvalidRequest
from wb_ops.warehouse import Owner, dataset_name

Policy = Literal["overwrite", "only_missing"]
Compute = Callable[[Run], Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class BackfillRequest:
    """Summary values for the runs of one project.

    Exactly one of `sql` and `compute` says what to write.

    Attributes:
        entity, project: the W&B project.
        sql: a SELECT with a column `run_id` and one column for each summary key. Table names
            without a schema are looked up in the project's dataset. A NULL writes nothing.
        compute: a function of the run that returns a dict of summary keys; `run.history_table()`
            gives it the full history. It is called for several runs at once.
        dataset: the warehouse schema that `sql` reads and that keeps the journal.
        filters: which runs; a MongoDB-style dict that the server evaluates.
        policy: "overwrite" replaces a value that differs; "only_missing" leaves it.
        include_running: also write to runs that still log; off, because the run's own next
            write replaces the whole summary.
        max_workers: how many `compute` calls run at once.
    """

    entity: str
    project: str
    sql: str | None = None
    compute: Compute | None = None
    dataset: str | None = None
    filters: Mapping[str, Any] = field(default_factory=dict)
    policy: Policy = "overwrite"
    include_running: bool = False
    max_workers: int = 8

    def __post_init__(self) -> None:
        if (self.sql is None) == (self.compute is None):
            raise InvalidRequest("A backfill takes its values from either sql or compute.")
        if self.policy not in get_args(Policy):
            raise InvalidRequest(f"policy={self.policy!r}: give one of {get_args(Policy)}.")

    @property
    def owner(self) -> Owner:
        """The project as the warehouse records it."""
        return Owner(self.entity, self.project)

    @property
    def dataset_name(self) -> str:
        """The warehouse schema with the project's tables and the journal."""
        return self.dataset or dataset_name(self.entity, self.project)
