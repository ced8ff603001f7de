"""A W&B project in YAML: assets, and where wanted backfills, a sensor, and late data observed."""

# No postponed annotations here: Dagster builds the YAML's schema from them as they stand.

from collections.abc import Iterator
from datetime import timedelta
from typing import Annotated, Any, Literal

import dagster as dg
from dagster.components.resolved.core_models import OpSpec
from dagster.components.utils.translation import TranslationFn, TranslationFnResolver
from pydantic import Field, model_validator

from wb_ops.dagster.assets import build_wandb_assets
from wb_ops.dagster.backfill import build_wandb_backfill_asset
from wb_ops.dagster.checks import WandbChecks
from wb_ops.dagster.component_backfill import WandbBackfill, refuse_unused
from wb_ops.dagster.late_data import (
    build_changes_schedule,
    build_wandb_changes,
    late_data_condition,
)
from wb_ops.dagster.options import WandbBackfillOptions
from wb_ops.dagster.partitions import created_days, run_partitions
from wb_ops.dagster.resource import WandbResource, WarehouseResource
from wb_ops.dagster.scaffolder import WandbScaffolder
from wb_ops.dagster.sensors import ENDED_STATES, build_finished_runs_sensor
from wb_ops.dagster.translator import FunctionTranslator, WandbTableProps, WandbTranslator


@dg.scaffold_with(WandbScaffolder)
class WandbProjectComponent(dg.Component, dg.Model, dg.Resolvable):
    """Exports the runs and histories of one W&B project into a warehouse; writes values back.

    Loads without a request to W&B. Several of them can be in one location: each has its own
    access and warehouse. Subclass it and override `get_asset_spec` to change the assets.
    """

    entity: str = Field(description="User or team that owns the W&B project.", examples=["acme"])
    project: str = Field(description="The W&B project.", examples=["nano-gpt"])
    warehouse: str = Field(
        repr=False,
        description="Where the tables go.",
        examples=["duckdb:////data/experiments.duckdb", "{{ env.WB_OPS_WAREHOUSE }}"],
    )
    api_key: str | None = Field(
        default=None,
        repr=False,
        description="Default: WANDB_API_KEY, netrc or W&B's settings file, where a step runs.",
        examples=["{{ env.TEAM_WANDB_API_KEY }}"],
    )
    base_url: str | None = Field(
        default=None,
        description="The server's API address. Default: WANDB_BASE_URL, then W&B's own.",
    )
    dataset: str | None = Field(
        default=None,
        description="Schema in the warehouse and in the asset keys. Default: entity__project.",
        examples=["experiments"],
    )
    filters: dict[str, Any] | None = Field(
        default=None,
        description="Which runs: a MongoDB-style filter that W&B evaluates.",
        examples=[{"tags": {"$in": ["baseline"]}}],
    )
    tables: list[Literal["runs", "history", "system_metrics"]] = Field(
        default=["runs", "history"],
        description="Which tables, each an asset. system_metrics costs a request a run.",
        examples=[["runs", "history", "system_metrics"]],
    )
    states: list[str] | None = Field(
        default=None,
        description="Only runs in these states. Default: all.",
        examples=[["finished", "failed"]],
    )
    redact_secrets: bool = Field(
        default=False,
        description="Store values that look like keys or tokens as [redacted].",
    )
    keys: list[str] | None = Field(
        default=None,
        description="Which metrics, by their names as logged. Default: all.",
        examples=[["train/loss", "val/acc"]],
    )
    on_incomplete: Literal["mark", "fail"] = Field(
        default="mark",
        description="What happens when some histories do not add up: mark (receipts and the "
        "check history_complete say so) or fail (the step too, after the rest is committed).",
    )
    partitions: Literal["none", "created_day", "run"] = Field(
        default="none",
        description="none: one export of all that changed. created_day: a partition for the runs "
        "created on each UTC day. run: a partition for each run that ended, added by a sensor.",
    )
    start_date: str | None = Field(
        default=None, description="First day of created_day partitions.", examples=["2026-01-31"]
    )
    lookback_days: int | None = Field(
        default=None,
        ge=1,
        description="With created_day: materialize so many days again when a run of them changes.",
    )
    observe_cron: str = Field(
        default="*/15 * * * *",
        description="With lookback_days: when to look. The schedule is off until switched on.",
    )
    has_sensor: bool = Field(
        default=False,
        description="Add a sensor for runs that have ended, off at first. Implied by `run`. It "
        "launches the export and the backfills.",
    )
    min_rows: int | None = Field(
        default=None, ge=0, description="The check row_count fails where a table has fewer rows."
    )
    max_rows: int | None = Field(
        default=None, ge=0, description="The check row_count fails where a table has more rows."
    )
    main_metric: str | None = Field(
        default=None,
        description="The metric drawn on the page of history. Default: a likely one.",
        examples=["val/loss"],
    )
    backfills: list[WandbBackfill] = Field(
        default=[],
        description="Values computed per run and written back into W&B, each an asset with the "
        "partitions of the tables.",
        examples=[[{"name": "best_val_acc", "recipe": 'best("val_acc")'}]],
    )
    op: OpSpec | None = Field(
        default=None,
        description="Name, tags, pool and backfill policy of the step. Default pool: wandb_api; "
        "the observation of late data is in the same.",
    )
    translation: Annotated[
        TranslationFn[WandbTableProps] | None,
        TranslationFnResolver(template_vars_for_translation_fn=lambda props: {"props": props}),
    ] = Field(
        default=None,
        description="Changes of the assets; `props` has entity, project, dataset, table (of a "
        "backfill: its name) and kind (table or backfill).",
        examples=[{"key": "ml/{{ props.table }}", "owners": ["team:ml"]}],
    )

    @model_validator(mode="after")
    def _check(self) -> "WandbProjectComponent":
        is_daily = self.partitions == "created_day"
        looks_back = self.lookback_days is not None
        if is_daily != (self.start_date is not None) or (looks_back and not is_daily):
            raise ValueError("partitions: created_day and start_date; lookback_days needs both.")
        if (self.has_sensor or self.partitions == "run") and not self._ended_states():
            raise ValueError(f"states: a sensor needs one of {', '.join(ENDED_STATES)}.")
        refuse_unused(self.op, ("description",))
        return self

    def get_asset_spec(self, props: WandbTableProps) -> dg.AssetSpec:
        """Return the spec of one table; override this to change it in Python."""
        spec = WandbTranslator().get_asset_spec(props)
        return self.translation(spec, props) if self.translation else spec

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """Return the project's definitions; no request is made."""
        wandb = WandbResource(api_key=self.api_key, base_url=self.base_url)
        partitions_def = self._partitions_def()
        source = self._changes(partitions_def, wandb)
        assets = [
            self._assets(partitions_def, source, wandb),
            *(self._backfill(one, partitions_def, wandb) for one in self.backfills),
        ]
        return dg.Definitions(
            assets=assets if source is None else [*assets, source],
            schedules=[] if source is None else [build_changes_schedule(source, self.observe_cron)],
            sensors=list(self._sensors(assets, partitions_def, wandb)),
        )

    def _assets(
        self,
        partitions_def: dg.PartitionsDefinition | None,
        source: dg.SourceAsset | None,
        wandb: WandbResource,
    ) -> dg.AssetsDefinition:
        op = self.op or OpSpec()
        return build_wandb_assets(
            entity=self.entity,
            project=self.project,
            dataset=self.dataset,
            tables=self.tables,
            filters=self.filters,
            states=self.states,
            keys=self.keys,
            redact_secrets=self.redact_secrets,
            checks=WandbChecks(min_rows=self.min_rows, max_rows=self.max_rows),
            on_incomplete=self.on_incomplete,
            name=op.name,
            translator=FunctionTranslator(self.get_asset_spec),
            partitions_def=partitions_def,
            backfill_policy=op.backfill_policy,
            deps=[] if source is None else [source],
            automation_condition=self._condition(),
            main_metric=self.main_metric,
            pool=self._pool(),
            op_tags=op.tags,
            wandb=wandb,
            warehouse=WarehouseResource(url=self.warehouse),
        )

    def _backfill(
        self,
        backfill: WandbBackfill,
        partitions_def: dg.PartitionsDefinition | None,
        wandb: WandbResource,
    ) -> dg.AssetsDefinition:
        options: WandbBackfillOptions = {
            **backfill.options(),
            "dataset": self.dataset,
            "filters": self.filters if backfill.filters is None else backfill.filters,
            "translator": FunctionTranslator(self.get_asset_spec),
            "partitions_def": partitions_def,
            "automation_condition": self._condition(),
        }
        return build_wandb_backfill_asset(
            name=backfill.name,
            entity=self.entity,
            project=self.project,
            wandb=wandb,
            warehouse=WarehouseResource(url=self.warehouse),
            **options,
        )

    def _pool(self) -> str:
        return (self.op.pool if self.op else None) or "wandb_api"

    def _condition(self) -> dg.AutomationCondition[dg.AssetKey] | None:
        if self.lookback_days is None:
            return None
        return late_data_condition(timedelta(days=self.lookback_days))

    def _partitions_def(self) -> dg.PartitionsDefinition | None:
        if self.partitions == "run":
            return run_partitions(self.entity, self.project, self.dataset)
        return None if self.start_date is None else created_days(self.start_date)

    def _changes(
        self, partitions_def: dg.PartitionsDefinition | None, wandb: WandbResource
    ) -> dg.SourceAsset | None:
        days = partitions_def
        if self.lookback_days is None or not isinstance(days, dg.TimeWindowPartitionsDefinition):
            return None
        return build_wandb_changes(
            entity=self.entity,
            project=self.project,
            partitions_def=days,
            dataset=self.dataset,
            filters=self.filters,
            states=self.states,
            lookback=timedelta(days=self.lookback_days),
            pool=self._pool(),
            wandb=wandb,
        )

    def _sensors(
        self,
        assets: list[dg.AssetsDefinition],
        partitions_def: dg.PartitionsDefinition | None,
        wandb: WandbResource,
    ) -> Iterator[dg.SensorDefinition]:
        if self.has_sensor or self.partitions == "run":
            yield build_finished_runs_sensor(
                entity=self.entity,
                project=self.project,
                target=dg.AssetSelection.assets(*assets),
                partitions_def=partitions_def,
                filters=self.filters,
                states=self._ended_states(),
                wandb=wandb,
            )

    def _ended_states(self) -> list[str]:
        return [one for one in ENDED_STATES if self.states is None or one in self.states]
