"""Answers the checks of an export, from the warehouse and from Dagster's own records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import dagster as dg

from wb_ops.dagster.checks import WandbChecks
from wb_ops.dagster.metadata import Metadata, markdown_table, run_link
from wb_ops.dagster.partitions import Slice

if TYPE_CHECKING:
    from wb_ops.warehouse import Warehouse

MAX_RUNS_SHOWN = 20

_RECEIPTS = """
    select run_id, status, note, rows_read, server_rows from _wb_receipts
    where table_name = 'history' {chosen} order by run_id
"""
_REPEATED = """
    select count(*) as repeated, min(run_id) as run_id from (
        select run_id from history
        where run_id in (
            select run_id from _wb_receipts where table_name = 'history' and load_id = {load_id}
        )
        group by run_id, _step having count(*) > 1
    ) as twice
"""


@dataclass(frozen=True, slots=True)
class Loaded:
    """One table after an export, as its checks see it."""

    context: dg.AssetExecutionContext
    warehouse: Warehouse
    dataset: str
    table: str
    key: dg.AssetKey
    part: Slice | None
    load_id: str
    project_url: str
    columns: dg.TableSchema

    @property
    def chosen(self) -> str:
        """The rows of the step's partitions, as an SQL condition on a table with run ids."""
        if self.part is None:
            return "run_id is not null"
        return f"run_id in (select run_id from runs where {self.part.condition})"

    def query(self, sql: str) -> list[dict[str, Any]]:
        """Ask the dataset."""
        rows: list[dict[str, Any]] = self.warehouse.query(sql, self.dataset).to_pylist()
        return rows


def evaluate(checks: WandbChecks, loaded: Loaded) -> Iterator[dg.AssetCheckResult]:
    """Answer the selected checks of one table; before its materialization is reported."""
    answers: dict[str, Callable[[], Answer]] = {
        "history_complete": lambda: _history_complete(loaded),
        "unique_steps": lambda: _unique_steps(loaded),
        "schema_change": lambda: _schema_change(loaded),
        "row_count": lambda: _row_count(checks, loaded),
    }
    for check_key in sorted(loaded.context.selected_asset_check_keys, key=lambda one: one.name):
        if check_key.asset_key == loaded.key and check_key.name in answers:
            answer = answers[check_key.name]()
            yield dg.AssetCheckResult(
                passed=answer.passed,
                asset_key=loaded.key,
                check_name=check_key.name,
                severity=answer.severity,
                description=answer.text,
                metadata=answer.metadata,
            )


@dataclass(frozen=True, slots=True)
class Answer:
    """A check's outcome before it has a name."""

    passed: bool
    text: str
    metadata: Metadata
    severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.ERROR


def _history_complete(loaded: Loaded) -> Answer:
    receipts = loaded.query(_RECEIPTS.format(chosen=f"and {loaded.chosen}"))
    wrong = [row for row in receipts if row["status"] in ("failed", "unexplained")]
    counts = dict(sorted(Counter(row["status"] for row in receipts).items()))
    return Answer(
        passed=not wrong,
        text=f"{len(wrong)} of {len(receipts)} histories do not add up.",
        metadata={
            "wandb/statuses": dg.MetadataValue.json(counts),
            "wandb/receipts": dg.MetadataValue.md(_receipts(wrong, loaded.project_url)),
        },
    )


def _receipts(wrong: Sequence[Mapping[str, Any]], project_url: str) -> str:
    names = ("status", "rows_read", "server_rows", "note")
    rows = (
        (run_link(row["run_id"], project_url), *(row[name] for name in names))
        for row in wrong[:MAX_RUNS_SHOWN]
    )
    head = ("run", "status", "rows read", "rows on the server", "note")
    return markdown_table(head, rows, len(wrong), "All histories add up.", MAX_RUNS_SHOWN)


def _unique_steps(loaded: Loaded) -> Answer:
    from wb_ops.warehouse.sql import literal

    (row,) = loaded.query(_REPEATED.format(load_id=literal(loaded.load_id)))
    repeated = int(row["repeated"])
    text = f"{repeated} steps are there twice, such as of run {row['run_id']}."
    return Answer(not repeated, text if repeated else "", {"wandb/repeated_steps": repeated})


def _schema_change(loaded: Loaded) -> Answer:
    now = {column.name: column.type for column in loaded.columns.columns}
    before = _columns_before(loaded)
    if before is None:
        return Answer(True, "The first materialization.", {"wandb/columns": len(now)})
    changed = sorted(name for name in now if name in before and before[name] != now[name])
    added, removed = sorted(now.keys() - before.keys()), sorted(before.keys() - now.keys())
    shown = {"added": added, "removed": removed, "type changed": changed}
    text = "; ".join(f"{what}: {', '.join(names)}" for what, names in shown.items() if names)
    return Answer(
        passed=not text,
        text=text,
        metadata={"wandb/columns": len(now), "wandb/changes": dg.MetadataValue.json(shown)},
        severity=dg.AssetCheckSeverity.WARN,
    )


def _columns_before(loaded: Loaded) -> dict[str, str] | None:
    event = loaded.context.instance.get_latest_materialization_event(loaded.key)
    last = event.asset_materialization if event is not None else None
    schema = last.metadata.get("dagster/column_schema") if last is not None else None
    if not isinstance(schema, dg.TableSchemaMetadataValue):
        return None
    return {column.name: column.type for column in schema.schema.columns}


def _row_count(checks: WandbChecks, loaded: Loaded) -> Answer:
    sql = f"select count(*) as row_count from {loaded.table} where {loaded.chosen}"
    (row,) = loaded.query(sql)
    count, least, most = int(row["row_count"]), checks.min_rows, checks.max_rows
    passed = (least is None or count >= least) and (most is None or count <= most)
    bounds = f"{'' if least is None else least} to {'' if most is None else most}"
    return Answer(passed, f"{count:,} rows; bounds: {bounds}", {"wandb/row_count": count})
