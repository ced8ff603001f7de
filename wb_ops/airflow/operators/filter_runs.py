"""The runs that match, as a list that tasks can be mapped over."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from airflow.sdk import conf

from wb_ops.airflow.operators.arguments import parse_count, parse_filters
from wb_ops.airflow.operators.base import WandbProjectOperator
from wb_ops.errors import InvalidRequest

if TYPE_CHECKING:
    from airflow.sdk import Context

MAX_RUNS = 10_000


def max_map_length() -> int:
    """Over how many elements Airflow maps at most."""
    return int(conf.getint("core", "max_map_length", fallback=1024))


class WandbFilterRunsOperator(WandbProjectOperator):
    """Lists the runs of a project that match a filter, for `.expand()`.

    Returns (as XCom) a list. Without `chunk_size` an element is a run: {"run_id", "name"}; with
    it, some runs: {"run_ids": [...], "name": "first … last (40)"}. The names are for
    `map_index_template`; the order is by creation. One request for 1,000 runs.

    Airflow maps over at most [core] max_map_length elements (1,024) and fails the mapped task
    where there are more; this task fails instead, and says which `chunk_size` fits.

    Args:
        chunk_size: how many runs an element has; by default each run is one.
        max_runs: more matching runs than this are an error: the list goes into the metadata
            database.

    Raises:
        InvalidRequest: too many runs match (retry: never).
        WbOpsError: unwrapped, with the advice that the retry policy reads.
    """

    template_fields: Sequence[str] = (
        *WandbProjectOperator.template_fields,
        "chunk_size",
        "max_runs",
    )

    def __init__(
        self,
        *,
        chunk_size: int | str | None = None,
        max_runs: int | str = MAX_RUNS,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.chunk_size = chunk_size
        self.max_runs = max_runs

    def _work(self, context: Context) -> list[dict[str, Any]]:
        chunk_size = parse_count("chunk_size", self.chunk_size, 1)
        max_runs = parse_count("max_runs", self.max_runs, 1) or MAX_RUNS
        filters = parse_filters(self.filters)
        with self.hook.get_conn() as api:
            path = "/".join(self._resolve_project(api, context))
            nodes = api.source(path).iter_nodes(filters)
            some = islice(nodes, max_runs + 1)
            runs = [{"run_id": n["name"], "name": n.get("displayName") or n["name"]} for n in some]
        self.log.info("%d runs of %s match %s", len(runs), path, filters)
        if len(runs) > max_runs:
            raise InvalidRequest(
                f"More than {max_runs} runs of {path} match: narrow the filters, or raise "
                "max_runs if the metadata database may hold the list."
            )
        return _fitting(runs, chunk_size)


def _fitting(runs: Sequence[dict[str, Any]], chunk_size: int | None) -> list[dict[str, Any]]:
    longest = max_map_length()
    elements = _chunks(runs, chunk_size) if chunk_size else list(runs)
    if len(elements) > longest:
        raise InvalidRequest(
            f"{len(runs)} runs make {len(elements)} mapped tasks, Airflow takes {longest} "
            f"([core] max_map_length): use chunk_size={-(-len(runs) // longest)} or more."
        )
    return elements


def _chunks(runs: Sequence[dict[str, Any]], size: int) -> list[dict[str, Any]]:
    parts = [runs[at : at + size] for at in range(0, len(runs), size)]
    return [{"run_ids": [run["run_id"] for run in part], "name": _span(part)} for part in parts]


def _span(runs: Sequence[dict[str, Any]]) -> str:
    if len(runs) == 1:
        return str(runs[0]["name"])
    return f"{runs[0]['name']} … {runs[-1]['name']} ({len(runs)})"
