"""What a project's component writes back to W&B, in YAML."""

# No postponed annotations here: Dagster builds the YAML's schema from them as they stand.

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import dagster as dg
from dagster.components.resolved.core_models import OpSpec
from pydantic import Field, model_validator

if TYPE_CHECKING:
    from wb_ops.dagster.options import WandbBackfillOptions


class WandbBackfill(dg.Model, dg.Resolvable):
    """Values computed per run and written back into the runs, as an asset after `history`.

    Exactly one of `recipe`, `sql` and `file` says which.
    """

    name: str = Field(description="The asset's name.", examples=["best_val_acc"])
    recipe: str | None = Field(
        default=None,
        description="A recipe on each run's full history: best, max_of, min_of, argmax, argmin, "
        "first, last, at_best.",
        examples=['best("val_acc")', 'best("val/loss", mode="min", also=["val/acc"])'],
    )
    sql: str | None = Field(
        default=None,
        description="A SELECT on the project's tables of run_id and a column for each key.",
        examples=["select run_id, max(val_acc) as best_val_acc from history group by run_id"],
    )
    file: str | None = Field(
        default=None,
        description="A CSV or parquet file with such columns, as the step's process sees it.",
        examples=["/data/labels.csv"],
    )
    target: Literal["summary", "config", "tags", "notes"] = Field(
        default="summary",
        description="What the keys are. tags: true adds the tag that the key names, false removes "
        "it. notes: the one key `notes`.",
    )
    filters: dict[str, Any] | None = Field(
        default=None,
        description="Which runs: a MongoDB-style filter. Default: the project's.",
        examples=[{"state": "finished"}],
    )
    policy: Literal["overwrite", "only_missing", "overwrite_if_older"] = Field(
        default="overwrite",
        description="overwrite: a value that differs. only_missing: no value that is there. "
        "overwrite_if_older: only what a backfill wrote before the run last logged.",
    )
    max_changes: int | None = Field(
        default=None, ge=0, description="A step that would write more values writes none and fails."
    )
    safe: bool = Field(
        default=False, description="One run at a time, with two requests each, instead of 25."
    )
    include_incomplete: bool = Field(
        default=False,
        description="Also write to runs whose history in the warehouse is incomplete or older.",
    )
    include_running: bool = Field(
        default=False, description="Also write to runs that still log, which may overwrite it."
    )
    op: OpSpec | None = Field(
        default=None,
        description="Tags, pool and backfill policy of the step. Default pool: wandb_write.",
    )

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
    if given := [f"op.{field}" for field in unused if getattr(op, field, None) is not None]:
        raise ValueError(
            f"{where}{' and '.join(given)} would not be used: the step of a backfill is named "
            "after the backfill, and assets are described by `translation`."
        )
