"""What a project's component writes back to W&B, in YAML."""

# No postponed annotations here: Dagster builds the YAML's schema from them as they stand.

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import dagster as dg
from dagster.components.resolved.core_models import OpSpec
from pydantic import Field, model_validator

from wb_ops.dagster.yaml_fields import field

if TYPE_CHECKING:
    from wb_ops.dagster.options import WandbBackfillOptions


class WandbBackfill(dg.Model, dg.Resolvable):
    """Values computed per run and written back into the runs, as an asset after `history`.

    Exactly one of `recipe`, `sql` and `file` says which.
    """

    name: Annotated[str, field("The asset's name.", "best_val_acc")]
    recipe: Annotated[
        str | None,
        field(
            "A recipe on each run's full history: best, max_of, min_of, argmax, argmin, "
            "first, last, at_best.",
            'best("val_acc")',
            'best("val/loss", mode="min", also=["val/acc"])',
        ),
    ] = None
    sql: Annotated[
        str | None,
        field(
            "A SELECT on the project's tables of run_id and a column for each key.",
            "select run_id, max(val_acc) as best_val_acc from history group by run_id",
        ),
    ] = None
    file: Annotated[
        str | None,
        field(
            "A CSV or parquet file with such columns, as the step's process sees it.",
            "/data/labels.csv",
        ),
    ] = None
    target: Annotated[
        Literal["summary", "config", "tags", "notes"],
        field(
            "What the keys are. tags: true adds the tag that the key names, false removes "
            "it. notes: the one key `notes`."
        ),
    ] = "summary"
    filters: Annotated[
        dict[str, Any] | None,
        field(
            "Which runs: a MongoDB-style filter. Default: the project's.",
            {"state": "finished"},
        ),
    ] = None
    policy: Annotated[
        Literal["overwrite", "only_missing", "overwrite_if_older"],
        field(
            "overwrite: a value that differs. only_missing: no value that is there. "
            "overwrite_if_older: only what a backfill wrote before the run last logged."
        ),
    ] = "overwrite"
    max_changes: Annotated[
        int | None,
        field("A step that would write more values writes none and fails."),
    ] = Field(default=None, ge=0)
    safe: Annotated[bool, field("One run at a time, with two requests each, instead of 25.")] = (
        False
    )
    include_incomplete: Annotated[
        bool,
        field("Also write to runs whose history in the warehouse is incomplete or older."),
    ] = False
    include_running: Annotated[
        bool, field("Also write to runs that still log, which may overwrite it.")
    ] = False
    op: Annotated[
        OpSpec | None,
        field("Tags, pool and backfill policy of the step. Default pool: wandb_write."),
    ] = None

    @model_validator(mode="after")
    def _check(self) -> "WandbBackfill":
        if sum(source is not None for source in (self.recipe, self.sql, self.file)) != 1:
            raise ValueError(f"backfills: {self.name}: give exactly one of recipe, sql and file.")
        refuse_unused(self.op, ("name", "description"), f"backfills: {self.name}: ")
        self.compute()
        return self

    def compute(self) -> Callable[..., Any] | None:
        """The recipe as a function, if it is one.

        Raises:
            InvalidRequest: it is no recipe (retry: never).
        """
        from wb_ops.backfill import parse_recipe

        return None if self.recipe is None else parse_recipe(self.recipe)

    def options(self) -> "WandbBackfillOptions":
        """What `build_wandb_backfill_asset` takes of it."""
        op = self.op or OpSpec()
        return {
            "sql": self.sql,
            "compute": self.compute(),
            "file": self.file,
            "target": self.target,
            "policy": self.policy,
            "max_changes": self.max_changes,
            "safe": self.safe,
            "include_incomplete": self.include_incomplete,
            "include_running": self.include_running,
            "backfill_policy": op.backfill_policy,
            "pool": op.pool or "wandb_write",
            "op_tags": op.tags,
        }


def refuse_unused(op: OpSpec | None, unused: Sequence[str], where: str = "") -> None:
    """Raise for what Dagster's `op:` takes and these assets do not use.

    Raises:
        ValueError: it names the fields and what to give instead.
    """
    if given := [f"op.{name}" for name in unused if getattr(op, name, None) is not None]:
        raise ValueError(
            f"{where}{' and '.join(given)} would not be used: the step of a backfill is named "
            "after the backfill, and assets are described by `translation`."
        )
