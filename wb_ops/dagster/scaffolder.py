"""`dg scaffold defs wb_ops.dagster.WandbProjectComponent`."""

from __future__ import annotations

import dagster as dg
from pydantic import Field


class WandbScaffoldParams(dg.Model):
    """What the command line asks for."""

    entity: str = Field(description="User or team that owns the W&B project.")
    project: str = Field(description="The W&B project.")
    warehouse: str = Field(
        default="{{ env.WB_OPS_WAREHOUSE }}",
        description="Where the tables go, such as duckdb:////data/experiments.duckdb.",
    )


class WandbScaffolder(dg.Scaffolder[WandbScaffoldParams]):
    """Writes a defs.yaml that needs nothing but the environment."""

    @classmethod
    def get_scaffold_params(cls) -> type[WandbScaffoldParams]:
        """The options of the command."""
        return WandbScaffoldParams

    def scaffold(self, request: dg.ScaffoldRequest[WandbScaffoldParams]) -> None:
        """Write the file; the key is left to the environment, where it is safest."""
        dg.scaffold_component(request, request.params.model_dump())
