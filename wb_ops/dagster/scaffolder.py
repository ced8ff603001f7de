"""`dg scaffold defs wb_ops.dagster.WandbProjectComponent`."""

from __future__ import annotations

import json
from typing import Any

import dagster as dg
from pydantic import Field

from wb_ops.dagster.assets import op_name


class WandbScaffoldParams(dg.Model):
    """What the command line asks for."""

    entity: str = Field(description="User or team that owns the W&B project.")
    project: str = Field(description="The W&B project.")
    warehouse: str = Field(
        default="{{ env.WB_OPS_WAREHOUSE }}",
        description="Where the tables go, such as duckdb:////data/experiments.duckdb.",
    )
    best: str | None = Field(
        default=None,
        description="A metric, as logged, whose best value is written back into each summary.",
    )


class WandbScaffolder(dg.Scaffolder[WandbScaffoldParams]):
    """Writes a defs.yaml that needs nothing but the environment."""

    @classmethod
    def get_scaffold_params(cls) -> type[WandbScaffoldParams]:
        """The options of the command."""
        return WandbScaffoldParams

    def scaffold(self, request: dg.ScaffoldRequest[WandbScaffoldParams]) -> None:
        """Write the file; the key is left to the environment, where it is safest."""
        attributes: dict[str, Any] = request.params.model_dump(exclude={"best"})
        if (metric := request.params.best) is not None:
            # JSON's text of a string is Python's too, but for signs escaped as two surrogates.
            recipe = f"best({json.dumps(metric, ensure_ascii=False)})"
            attributes["backfills"] = [{"name": f"best_{op_name(metric)}", "recipe": recipe}]
        dg.scaffold_component(request, attributes)
