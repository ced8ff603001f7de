"""What to write back, and from where its values come."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from wb_ops.backfill.targets import Target
from wb_ops.client.filters import require_valid
from wb_ops.client.texts import check_type
from wb_ops.errors import InvalidRequest
from wb_ops.warehouse import Owner, chosen_dataset

if TYPE_CHECKING:
    from wb_ops.client.runs import Run

Policy = Literal["overwrite", "only_missing", "overwrite_if_older"]
Compute: TypeAlias = "Callable[[Run], Mapping[str, Any]]"

_TEXT = ((str, NoneType), "a text, or None")
_FLAG = ((bool,), "True or False")
# field -> its types, and what to give; the values of the others are checked one by one
_TYPES: Mapping[str, tuple[tuple[type, ...], str]] = {
    "entity": ((str,), "a name"),
    "project": ((str,), "a name"),
    "sql": _TEXT,
    "dataset": ((str, NoneType), "a name, or None for the rule"),
    "filters": ((Mapping,), "a dict, such as {'state': 'finished'}"),
    "include_running": _FLAG,
    "max_workers": ((int,), "a whole number"),
    "file": ((str, Path, NoneType), "a path, or None"),
    "undo": _TEXT,
    "resume": _TEXT,
    "include_incomplete": _FLAG,
    "safe": _FLAG,
    "max_changes": ((int, NoneType), "a whole number, or None"),
}


@dataclass(frozen=True, slots=True)
class BackfillRequest:
    """Values for the runs of one project.

    Exactly one of `sql`, `compute`, `file`, `undo` and `resume` says what to write.

    Attributes:
        entity, project: the W&B project.
        sql: a SELECT with a column `run_id` and one column for each key. Table names without a
            schema are looked up in the project's dataset. A NULL writes nothing.
        compute: a function of the run that returns a dict of keys; `run.history_table()` gives
            it the full history as Arrow. It is called for several runs at once, whose histories
            have at most 5,000,000 rows together. A recipe (`best(...)`) is such a function.
        file: a CSV or parquet file with the columns that `sql` would return.
        undo: the id of a backfill whose old values shall come back.
        resume: the id of a backfill that was killed and shall be finished. With either, runs and
            values are those of the journal: `filters`, `target`, `policy` and
            `include_incomplete` are refused.
        dataset: the warehouse schema that `sql` reads and that keeps the journal.
        target: what the keys are: of the "summary" or the "config"; "tags" (true adds the tag
            that the key names, false removes it); or "notes" (the one key `notes`).
        filters: which runs; a MongoDB-style dict that the server evaluates.
        policy: "overwrite" replaces a value that differs; "only_missing" leaves it;
            "overwrite_if_older" replaces only what a backfill wrote before the run last logged.
        include_running: also write to runs that still log; off, because the run's own next
            write replaces the whole summary.
        include_incomplete: also write values that come of a history that is incomplete (fewer
            rows than the server counts, or not up to its last step) or, in the warehouse, older
            than the run. Else such runs are skipped.
        safe: one run at a time, two requests each, instead of 25 runs at a time.
        max_changes: execute nothing if more values than this would be written.
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
    file: str | Path | None = None
    undo: str | None = None
    resume: str | None = None
    target: Target = "summary"
    include_incomplete: bool = False
    safe: bool = False
    max_changes: int | None = None

    def __post_init__(self) -> None:
        for name, (types, wanted) in _TYPES.items():
            check_type(name, getattr(self, name), types, wanted)
        if self.compute is not None and not callable(self.compute):
            raise InvalidRequest(f"compute={self.compute!r}: give a function of the run, or None.")
        given = (self.sql, self.compute, self.file, self.undo, self.resume)
        if sum(source is not None for source in given) != 1:
            raise InvalidRequest(
                "A backfill takes its values from exactly one of sql, compute, file, undo, resume."
            )
        if self.policy not in get_args(Policy):
            raise InvalidRequest(f"policy={self.policy!r}: give one of {get_args(Policy)}.")
        if self.target not in get_args(Target):
            raise InvalidRequest(f"target={self.target!r}: give one of {get_args(Target)}.")
        if self.max_workers < 1:
            raise InvalidRequest(f"max_workers={self.max_workers!r}: give 1 or more.")
        if self.max_changes is not None and self.max_changes < 0:
            raise InvalidRequest(f"max_changes={self.max_changes!r}: give 0 or more.")
        require_valid(self.filters)
        self._require_nothing_unused()

    def _require_nothing_unused(self) -> None:
        """An undo or a resume has its runs and values from the journal."""
        if self.undo is None and self.resume is None:
            return
        kept = {
            "filters": bool(self.filters),
            "target": self.target != "summary",
            "policy": self.policy != "overwrite",
            "include_incomplete": self.include_incomplete,
        }
        if given := [name for name, is_given in kept.items() if is_given]:
            source = "undo" if self.undo is not None else "resume"
            raise InvalidRequest(
                f"{source} takes runs and values from the journal: leave out {', '.join(given)}."
            )

    @property
    def owner(self) -> Owner:
        """The project as the warehouse records it."""
        return Owner(self.entity, self.project)

    @property
    def dataset_name(self) -> str:
        """The warehouse schema with the project's tables and the journal."""
        return chosen_dataset(self.dataset, self.entity, self.project)
