"""Runs: the runs of a project as a list that is read when it is needed."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from wb_ops.client.history import HistoryReader
from wb_ops.client.lists import LazyList
from wb_ops.client.paging import MAX_PAGE_SIZE
from wb_ops.client.run import Run
from wb_ops.client.sampled import sampled_history
from wb_ops.client.source import RunSource
from wb_ops.errors import CommError, InvalidRequest, MalformedResponse

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

__all__ = ["Run", "Runs"]

log = logging.getLogger("wb_ops")


class Runs(LazyList[Run]):
    """The runs of a project that match, read page by page as they are needed.

    `len()` is the server's count (one request); iterating again reads no page twice. The first
    page has `per_page` runs; pages grow to 1,000 while answers are quick. One thread at a time may
    read it.

    Attributes:
        broken: run id -> error, of the runs met so far that the server cannot list.
    """

    def __init__(
        self,
        source: RunSource,
        reader: HistoryReader,
        filters: Mapping[str, Any] | None = None,
        order: str = "-created_at",
        per_page: int = 50,
    ) -> None:
        if not 1 <= per_page <= MAX_PAGE_SIZE:
            raise InvalidRequest(f"per_page={per_page}: W&B takes 1 to {MAX_PAGE_SIZE}.")
        if not isinstance(order, str):
            raise InvalidRequest(f"order={order!r}: give a field, such as '-created_at'.")
        self._source = source
        self._reader = reader
        self.broken: dict[str, CommError] = {}
        self._count: int | None = None
        self._nodes = partial(
            source.iter_nodes,
            filters,
            order,
            on_count=self._set_count,
            on_broken=self.broken.__setitem__,
            largest_page=MAX_PAGE_SIZE,
        )
        super().__init__(lambda: self._iter_runs(per_page), f"Runs {source.path}")

    def __len__(self) -> int:
        if self._count is None:
            self._load_up_to(1)
        return self._count or 0

    def __iter__(self) -> Iterator[Run]:
        yield from super().__iter__()
        listed = len(self._loaded)
        if self._count is not None and listed + len(self.broken) != self._count:
            log.warning(
                "%s: listed %d runs, the server counts %d (runs came or went meanwhile, or some "
                "are hidden from this key)",
                self._source.path,
                listed,
                self._count,
            )

    def upgrade_to_full(self) -> None:
        """Nothing: runs are listed with config and summary, also with `lazy=True`."""

    def to_arrow(self) -> pa.Table:
        """Return all runs in the canonical schema of table `runs` (config and summary as JSON).

        One request for 1,000 runs, where none was read before.
        """
        from wb_ops.tables.runs import runs_table

        if self._count is None:
            self._pending = self._iter_runs(MAX_PAGE_SIZE)
        nodes = [run._node for run in self]
        try:
            return runs_table(
                nodes, entity=self._source.entity, project=self._source.project, load_id=None
            )
        except ValueError as exc:
            raise MalformedResponse(
                f"A run of {self._source.path} cannot be read: {exc}", exc
            ) from exc

    def to_frame(self) -> pd.DataFrame:
        """Return all runs as a pandas frame; see `to_arrow`."""
        frame: pd.DataFrame = self.to_arrow().to_pandas()
        return frame

    def histories(
        self,
        samples: int = 500,
        keys: Sequence[str] | None = None,
        x_axis: str = "_step",
        format: Literal["default", "pandas"] = "default",  # noqa: A002 - W&B's name
        stream: str = "default",
    ) -> list[dict[str, Any]] | pd.DataFrame:
        """Return about `samples` rows a run, **sampled by the server**; one request a run.

        Each row has its `run_id`. Arguments as in `Run.history`; a frame for `format="pandas"`,
        its columns sorted.
        """
        if format not in ("default", "pandas"):
            raise InvalidRequest(f"format={format!r}: give 'default' or 'pandas'.")
        rows = [
            {**row, "run_id": run.id}
            for run in self
            for row in sampled_history(self._source, run.id, samples, keys, x_axis, stream)
        ]
        if format == "default":
            return rows
        import pandas as pd

        return pd.DataFrame.from_records(rows).sort_index(axis="columns")

    def _set_count(self, count: int) -> None:
        self._count = count

    def _restart(self) -> None:
        super()._restart()
        self._count = None
        self.broken.clear()

    def _iter_runs(self, page_size: int) -> Iterator[Run]:
        for node in self._nodes(page_size=page_size):
            # What could not be listed before may be there where the listing is read again.
            self.broken.pop(node["name"], None)
            yield Run(self._source, self._reader, node)
