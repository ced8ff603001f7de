"""The pipeline of dlt that is at work, and SQL in its destination."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from dlt.common.configuration.container import Container
from dlt.common.destination.exceptions import DestinationUndefinedEntity
from dlt.common.destination.utils import resolve_merge_strategy
from dlt.common.pipeline import PipelineContext
from dlt.common.storages.load_package import LoadPackageStateInjectableContext
from dlt.extract.source import SourceInjectableContext

SCHEMA_NAME = "wandb"
STRATEGY = "delete-insert"
# As every table of rows is given to dlt; a known one may have a table format, too.
_MERGED: Any = {
    "name": "runs", "columns": {}, "write_disposition": "merge", "x-merge-strategy": STRATEGY
}  # fmt: skip


def package_id() -> str | None:
    """The id of the load package that is being extracted; None outside of a pipeline."""
    container = Container()
    if LoadPackageStateInjectableContext not in container:
        return None
    return str(container[LoadPackageStateInjectableContext].load_id)


def active_pipeline() -> Any:
    """The pipeline at work; None outside of one."""
    context = Container()[PipelineContext]
    return context.pipeline() if context.is_active() else None


def selected_steps() -> dict[str, int]:
    """The resources of the source at work that dlt loads, and of how many steps each is made."""
    container = Container()
    if SourceInjectableContext not in container:
        return {}
    selected = container[SourceInjectableContext].source.selected_resources
    return {name: len(resource._pipe) for name, resource in selected.items()}


def is_merging(pipeline: Any) -> bool:
    """Whether the destination replaces a run's rows; without a merge dlt only appends.

    The SQL client's own capabilities would not tell: over files it is a DuckDB beside them.
    """
    schemas = pipeline.schemas
    known = schemas[SCHEMA_NAME].tables.get("runs") if SCHEMA_NAME in schemas else None
    table = known or _MERGED
    capabilities = pipeline.destination_client().capabilities
    return bool(resolve_merge_strategy({"runs": table}, table, capabilities) == STRATEGY)


def iter_rows(
    client: Any, table_name: str, columns: Sequence[str] = (), run_ids: Sequence[str] = ()
) -> Iterator[dict[str, Any]]:
    """Yield rows of a table, all its columns or some, of all runs or some."""
    selected = ", ".join(map(client.escape_column_name, columns)) or "*"
    sql = f"SELECT {selected} FROM {client.make_qualified_table_name(table_name)}"
    if run_ids:
        marks = ", ".join(["%s"] * len(run_ids))
        sql += f" WHERE {client.escape_column_name('run_id')} IN ({marks})"
    with client.execute_query(sql, *run_ids) as cursor:
        names = [column[0] for column in cursor.description]
        while rows := cursor.fetchmany(10_000):
            for row in rows:
                yield dict(zip(names, row, strict=True))


def rows_of(client: Any, table_name: str) -> list[dict[str, Any]]:
    """All rows of a table; none where no load has made it yet."""
    try:
        return list(iter_rows(client, table_name))
    except DestinationUndefinedEntity:
        return []


def finished_loads(client: Any) -> set[str]:
    """The loads that dlt has recorded as finished: the tables of a load arrive one by one.

    Raises:
        DestinationUndefinedEntity: there was no load yet.
    """
    return {row["load_id"] for row in iter_rows(client, "_dlt_loads") if not row["status"]}
