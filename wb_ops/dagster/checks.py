"""Which checks an export answers in its own step, without a second process."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import dagster as dg


@dataclass(frozen=True, slots=True)
class WandbChecks:
    """Which checks an export has, on `history` and `runs`.

    Attributes:
        history_complete: every history that was asked for adds up against the server's counters
            (receipts); ERROR where one failed or is unexplained.
        unique_steps: no run of this load has a step twice.
        schema_change: the columns are those of the last materialization; WARN where not.
        min_rows, max_rows: bounds for the rows of the table, or of the partitions asked for.
        blocking: whether assets downstream wait for `history_complete` and `unique_steps`.
    """

    history_complete: bool = True
    unique_steps: bool = True
    schema_change: bool = True
    min_rows: int | None = None
    max_rows: int | None = None
    blocking: bool = False

    def specs(self, keys: Mapping[str, dg.AssetKey]) -> list[dg.AssetCheckSpec]:
        """Return the checks of the tables `keys` (table -> asset)."""
        return [
            dg.AssetCheckSpec(
                name, asset=key, description=_DESCRIPTIONS[name], blocking=self._blocks(name)
            )
            for table, key in keys.items()
            for name in self._names(table)
        ]

    def _names(self, table: str) -> Iterator[str]:
        if table == "history":
            if self.history_complete:
                yield "history_complete"
            if self.unique_steps:
                yield "unique_steps"
        if self.schema_change:
            yield "schema_change"
        if self.min_rows is not None or self.max_rows is not None:
            yield "row_count"

    def _blocks(self, name: str) -> bool:
        return self.blocking and name in ("history_complete", "unique_steps")


_DESCRIPTIONS = {
    "history_complete": "Every history adds up against the server's counters.",
    "unique_steps": "No run that was just written has a step twice.",
    "schema_change": "The columns are those of the last materialization.",
    "row_count": "The number of rows is inside its bounds.",
}
