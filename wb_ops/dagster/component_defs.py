"""What becomes of a project's YAML: its assets, its sensor, and the source of its late data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import dagster as dg
from dagster.components.resolved.core_models import OpSpec

from wb_ops.dagster.assets import build_wandb_assets
from wb_ops.dagster.backfill import build_wandb_backfill_asset
from wb_ops.dagster.checks import WandbChecks
from wb_ops.dagster.late_data import (
    build_changes_schedule,
    build_wandb_changes,
    late_data_condition,
)
from wb_ops.dagster.options import WandbBackfillOptions
from wb_ops.dagster.partitions import created_days, run_partitions
from wb_ops.dagster.resource import WandbResource, WarehouseResource
from wb_ops.dagster.sensors import build_finished_runs_sensor
from wb_ops.dagster.translator import FunctionTranslator

if TYPE_CHECKING:
    from wb_ops.dagster.component import WandbProjectComponent
    from wb_ops.dagster.component_backfill import WandbBackfill


def project_definitions(component: WandbProjectComponent) -> dg.Definitions:
    """Return the definitions that a component's fields ask for; no request is made."""
    parts = _Parts.of(component)
    source = parts.changes()
    assets = [parts.export(source), *map(parts.backfill, component.backfills)]
    return dg.Definitions(
        assets=assets if source is None else [*assets, source],
        schedules=[]
        if source is None
        else [build_changes_schedule(source, component.observe_cron)],
        sensors=list(parts.sensors(assets)),
    )


@dataclass(frozen=True, slots=True)
class _Parts:
    """The parts of one component; its resources and partitions are those of all of them."""

    of_yaml: WandbProjectComponent
    wandb: WandbResource
    warehouse: WarehouseResource
    translator: FunctionTranslator
    partitions_def: dg.PartitionsDefinition | None
    condition: dg.AutomationCondition[dg.AssetKey] | None
    pool: str

    @classmethod
    def of(cls, component: WandbProjectComponent) -> _Parts:
        return cls(
            of_yaml=component,
            wandb=WandbResource(api_key=component.api_key, base_url=component.base_url),
            warehouse=WarehouseResource(url=component.warehouse),
            translator=FunctionTranslator(component.get_asset_spec),
            partitions_def=_partitions_def(component),
            condition=_condition(component),
            pool=(component.op or OpSpec()).pool or "wandb_api",
        )

    def export(self, source: dg.SourceAsset | None) -> dg.AssetsDefinition:
        one, op = self.of_yaml, self.of_yaml.op or OpSpec()
        return build_wandb_assets(
            entity=one.entity,
            project=one.project,
            dataset=one.dataset,
            tables=one.tables,
            filters=one.filters,
            states=one.states,
            keys=one.keys,
            redact_secrets=one.redact_secrets,
            checks=WandbChecks(min_rows=one.min_rows, max_rows=one.max_rows),
            on_incomplete=one.on_incomplete,
            name=op.name,
            translator=self.translator,
            partitions_def=self.partitions_def,
            backfill_policy=op.backfill_policy,
            deps=[] if source is None else [source],
            automation_condition=self.condition,
            main_metric=one.main_metric,
            pool=self.pool,
            op_tags=op.tags,
            wandb=self.wandb,
            warehouse=self.warehouse,
        )

    def backfill(self, backfill: WandbBackfill) -> dg.AssetsDefinition:
        options: WandbBackfillOptions = {
            **backfill.options(),
            "dataset": self.of_yaml.dataset,
            "filters": self.of_yaml.filters if backfill.filters is None else backfill.filters,
            "translator": self.translator,
            "partitions_def": self.partitions_def,
            "automation_condition": self.condition,
        }
        return build_wandb_backfill_asset(
            name=backfill.name,
            entity=self.of_yaml.entity,
            project=self.of_yaml.project,
            wandb=self.wandb,
            warehouse=self.warehouse,
            **options,
        )

    def changes(self) -> dg.SourceAsset | None:
        one, days = self.of_yaml, self.partitions_def
        if one.lookback_days is None or not isinstance(days, dg.TimeWindowPartitionsDefinition):
            return None
        return build_wandb_changes(
            entity=one.entity,
            project=one.project,
            partitions_def=days,
            dataset=one.dataset,
            filters=one.filters,
            states=one.states,
            lookback=timedelta(days=one.lookback_days),
            pool=self.pool,
            wandb=self.wandb,
        )

    def sensors(self, assets: list[dg.AssetsDefinition]) -> Iterator[dg.SensorDefinition]:
        one = self.of_yaml
        if one.has_sensor or one.partitions == "run":
            yield build_finished_runs_sensor(
                entity=one.entity,
                project=one.project,
                target=dg.AssetSelection.assets(*assets),
                partitions_def=self.partitions_def,
                filters=one.filters,
                states=one.ended_states(),
                wandb=self.wandb,
            )


def _partitions_def(component: WandbProjectComponent) -> dg.PartitionsDefinition | None:
    if component.partitions == "run":
        return run_partitions(component.entity, component.project, component.dataset)
    return None if component.start_date is None else created_days(component.start_date)


def _condition(component: WandbProjectComponent) -> dg.AutomationCondition[dg.AssetKey] | None:
    if component.lookback_days is None:
        return None
    return late_data_condition(timedelta(days=component.lookback_days))
