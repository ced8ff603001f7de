"""From a W&B project's tables to Dagster's asset specs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import dagster as dg

Kind = Literal["table", "backfill"]

_DESCRIPTIONS = {
    "runs": "One row for each run of {project}: state, config, summary, tags, times.",
    "history": "One row for each run and step of {project}, one column for each metric.",
    "system_metrics": "CPU, memory, GPU and the like of {project} over time, as W&B samples them.",
}


@dataclass(frozen=True, slots=True)
class WandbTableProps:
    """What a translator knows of one asset.

    Attributes:
        entity, project: the W&B project.
        dataset: the warehouse schema.
        table: "runs", "history" or "system_metrics"; of a backfill, its name.
        kind: "table" for what is exported, "backfill" for what is written back to W&B.
    """

    entity: str
    project: str
    dataset: str
    table: str
    kind: Kind = "table"

    @property
    def path(self) -> str:
        """entity/project."""
        return f"{self.entity}/{self.project}"


class WandbTranslator:
    """Names and describes the assets. Override `get_asset_spec` to change what you like.

    Example:
        >>> class OurNames(WandbTranslator):
        ...     def get_asset_spec(self, props: WandbTableProps) -> dg.AssetSpec:
        ...         spec = super().get_asset_spec(props)
        ...         return spec.replace_attributes(key=["ml", props.table], owners=["team:ml"])
    """

    def get_asset_spec(self, props: WandbTableProps) -> dg.AssetSpec:
        """Return the spec: key `dataset/table`, as the table is called in the warehouse."""
        return dg.AssetSpec(
            key=[props.dataset, props.table],
            description=_description(props),
            group_name="wandb",
            kinds={"wandb"},
            metadata=_metadata(props),
        )


class FunctionTranslator(WandbTranslator):
    """A translator that asks a function."""

    def __init__(self, get_asset_spec: Callable[[WandbTableProps], dg.AssetSpec]) -> None:
        self._get_asset_spec = get_asset_spec

    def get_asset_spec(self, props: WandbTableProps) -> dg.AssetSpec:
        """Return what the function returns."""
        return self._get_asset_spec(props)


def _description(props: WandbTableProps) -> str:
    if props.kind == "backfill":
        return f"Values computed per run, written into the run summaries of {props.path}."
    return _DESCRIPTIONS[props.table].format(project=props.path)


def _metadata(props: WandbTableProps) -> dict[str, str]:
    if props.kind == "backfill":
        return {"wandb/path": props.path}
    return {"wandb/path": props.path, "dagster/table_name": f"{props.dataset}.{props.table}"}
