"""A W&B project in YAML: assets, and where wanted backfills, a sensor, and late data observed."""

# No postponed annotations here: Dagster builds the YAML's schema from them as they stand.

from typing import Annotated, Any, Literal

import dagster as dg
from dagster.components.resolved.core_models import OpSpec
from dagster.components.utils.translation import TranslationFn, TranslationFnResolver
from pydantic import BaseModel, Field, model_validator

from wb_ops.dagster.component_backfill import WandbBackfill, refuse_unused
from wb_ops.dagster.component_defs import project_definitions
from wb_ops.dagster.scaffolder import WandbScaffolder
from wb_ops.dagster.sensors import ENDED_STATES
from wb_ops.dagster.translator import WandbTableProps, WandbTranslator
from wb_ops.dagster.yaml_fields import field


@dg.scaffold_with(WandbScaffolder)
class WandbProjectComponent(dg.Component, dg.Model, dg.Resolvable):
    """Exports the runs and histories of one W&B project into a warehouse; writes values back.

    Loads without a request to W&B. Several of them can be in one location: each has its own
    access and warehouse. Subclass it and override `get_asset_spec` to change the assets.
    """

    entity: Annotated[str, field("User or team that owns the W&B project.", "acme")]
    project: Annotated[str, field("The W&B project.", "nano-gpt")]
    warehouse: Annotated[
        str,
        field(
            "Where the tables go.",
            "duckdb:////data/experiments.duckdb",
            "{{ env.WB_OPS_WAREHOUSE }}",
        ),
    ] = Field(repr=False)
    api_key: Annotated[
        str | None,
        field(
            "Default: WANDB_API_KEY, netrc or W&B's settings file, where a step runs.",
            "{{ env.TEAM_WANDB_API_KEY }}",
        ),
    ] = Field(default=None, repr=False)
    base_url: Annotated[
        str | None, field("The server's API address. Default: WANDB_BASE_URL, then W&B's own.")
    ] = None
    dataset: Annotated[
        str | None,
        field(
            "Schema in the warehouse and in the asset keys. Default: entity__project.",
            "experiments",
        ),
    ] = None
    filters: Annotated[
        dict[str, Any] | None,
        field(
            "Which runs: a MongoDB-style filter that W&B evaluates.",
            {"tags": {"$in": ["baseline"]}},
        ),
    ] = None
    tables: Annotated[
        list[Literal["runs", "history", "system_metrics"]],
        field(
            "Which tables, each an asset. system_metrics costs a request a run.",
            ["runs", "history", "system_metrics"],
        ),
    ] = Field(default=["runs", "history"])
    states: Annotated[
        list[str] | None,
        field(
            "Only runs in these states. Default: all.",
            ["finished", "failed"],
        ),
    ] = None
    redact_secrets: Annotated[
        bool, field("Store values that look like keys or tokens as [redacted].")
    ] = False
    keys: Annotated[
        list[str] | None,
        field(
            "Which metrics, by their names as logged. Default: all.",
            ["train/loss", "val/acc"],
        ),
    ] = None
    on_incomplete: Annotated[
        Literal["mark", "fail"],
        field(
            "What happens when some histories do not add up: mark (receipts and the "
            "check history_complete say so) or fail (the step too, after the rest is committed)."
        ),
    ] = "mark"
    partitions: Annotated[
        Literal["none", "created_day", "run"],
        field(
            "none: one export of all that changed. created_day: a partition for the runs "
            "created on each UTC day. run: a partition for each run that ended, added by a sensor."
        ),
    ] = "none"
    start_date: Annotated[
        str | None, field("First day of created_day partitions.", "2026-01-31")
    ] = None
    lookback_days: Annotated[
        int | None,
        field("With created_day: materialize so many days again when a run of them changes."),
    ] = Field(default=None, ge=1)
    observe_cron: Annotated[
        str,
        field("With lookback_days: when to look. The schedule is off until switched on."),
    ] = "*/15 * * * *"
    has_sensor: Annotated[
        bool,
        field(
            "Add a sensor for runs that have ended, off at first. Implied by `run`. It "
            "launches the export and the backfills."
        ),
    ] = False
    min_rows: Annotated[
        int | None, field("The check row_count fails where a table has fewer rows.")
    ] = Field(default=None, ge=0)
    max_rows: Annotated[
        int | None, field("The check row_count fails where a table has more rows.")
    ] = Field(default=None, ge=0)
    main_metric: Annotated[
        str | None,
        field("The metric drawn on the page of history. Default: a likely one.", "val/loss"),
    ] = None
    backfills: Annotated[
        list[WandbBackfill],
        field(
            "Values computed per run and written back into W&B, each an asset with the "
            "partitions of the tables.",
            [{"name": "best_val_acc", "recipe": 'best("val_acc")'}],
        ),
    ] = Field(default=[])
    op: Annotated[
        OpSpec | None,
        field(
            "Name, tags, pool and backfill policy of the step. Default pool: wandb_api; "
            "the observation of late data is in the same."
        ),
    ] = None
    translation: Annotated[
        Annotated[
            TranslationFn[WandbTableProps],
            TranslationFnResolver(template_vars_for_translation_fn=lambda props: {"props": props}),
        ]
        | None,
        field(
            "Changes of the assets; `props` has entity, project, dataset, table (of a "
            "backfill: its name) and kind (table or backfill).",
            {"key": "ml/{{ props.table }}", "owners": ["team:ml"]},
        ),
    ] = None

    @model_validator(mode="after")
    def _check(self) -> "WandbProjectComponent":
        is_daily = self.partitions == "created_day"
        looks_back = self.lookback_days is not None
        if is_daily != (self.start_date is not None) or (looks_back and not is_daily):
            raise ValueError("partitions: created_day and start_date; lookback_days needs both.")
        if (self.has_sensor or self.partitions == "run") and not self.ended_states():
            raise ValueError(f"states: a sensor needs one of {', '.join(ENDED_STATES)}.")
        refuse_unused(self.op, ("description",))
        return self

    @classmethod
    def resolve_from_model(
        cls, context: dg.ResolutionContext, model: BaseModel
    ) -> "WandbProjectComponent":
        """Read what YAML says; a variable of the environment that it names has to be set."""
        from wb_ops.dagster.yaml_env import EnvironmentScope

        strict = context.with_scope(env=EnvironmentScope())
        component: WandbProjectComponent = super().resolve_from_model(strict, model)
        return component

    def get_asset_spec(self, props: WandbTableProps) -> dg.AssetSpec:
        """Return the spec of one table; override this to change it in Python."""
        spec = WandbTranslator().get_asset_spec(props)
        return self.translation(spec, props) if self.translation else spec

    def ended_states(self) -> list[str]:
        """The states of `states` that a run does not leave again."""
        return [one for one in ENDED_STATES if self.states is None or one in self.states]

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """Return the project's definitions; no request is made."""
        return project_definitions(self)
