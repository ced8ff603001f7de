"""The rows of one run: all of them, as a table or one by one, or the server's sample."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from wb_ops.client.history import RawHistory, Require, Selection
from wb_ops.client.history_exports import HistoryExports, copy_exports
from wb_ops.client.run_fields import RunFields
from wb_ops.client.sampled import chosen_keys, sampled_history
from wb_ops.errors import IncompleteHistory, InvalidRequest
from wb_ops.tables.runs import OPEN_STATES

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


class RunHistory(RunFields):
    """What one run logged, read when it is asked for and kept nowhere."""

    def history_table(
        self,
        keys: Sequence[str] | None = None,
        min_step: int | None = None,
        max_step: int | None = None,
        require: Require = "any",
        require_complete: bool = False,
    ) -> pa.Table:
        """Return every logged row, unsampled, as an Arrow table in `_step` order.

        One row a step; a column for each metric under its own name, null where it was not
        logged. With `keys`, the rows that hold any of them (`require="all"`: all of them).
        `min_step` is included, `max_step` is not. One request, and one for each parquet file or
        window of steps.

        Raises:
            IncompleteHistory: with `require_complete`, the rows do not add up to what the server
                counts (asked for without `min_step` and `max_step`), or the run still logs (retry:
                backoff).
            CommError: by the table in `errors`.
        """
        if require_complete and self.state in OPEN_STATES:
            path = "/".join(self.path)
            raise IncompleteHistory(f"Run {path} is {self.state}: it may still log.", path=path)
        selection = Selection(chosen_keys(keys), min_step, max_step, require)
        with self._read(selection, require_complete=require_complete) as raw:
            return raw.select(raw.merged().table)

    def _read(self, selection: Selection, *, require_complete: bool = False) -> RawHistory:
        raw = self._reader.read(self._source, self.id, selection)
        return replace(raw, requires_complete=require_complete)

    def scan_history(
        self,
        keys: Sequence[str] | None = None,
        page_size: int = 1000,
        min_step: int | None = None,
        max_step: int | None = None,
        use_cache: bool = True,
        *,
        require: Require = "any",
    ) -> Iterator[dict[str, Any]]:
        """Yield every logged row as a dict of what was logged; the same rows as `history_table`.

        `use_cache` is taken for the sake of W&B's signature: nothing is cached here, so that an
        old copy is never read. Lazy: memory holds about 100,000 rows of the history at a time,
        and `page_size` rows are turned into Python values at a time.

        Raises:
            InvalidRequest: an argument that is none; at once (retry: never).
        """
        if page_size < 1:
            raise InvalidRequest(f"page_size={page_size}: give 1 or more.")
        selection = Selection(chosen_keys(keys), min_step, max_step, require)
        return self._iter_rows(selection, page_size)

    beta_scan_history = scan_history

    def download_history_exports(
        self, download_dir: str | os.PathLike[str], require_complete_history: bool = True
    ) -> HistoryExports:
        """Copy the parquet files that W&B exports of this history to a folder, as they are.

        Copies appear when all files have come, and replace those of the same name. An earlier call
        may have left more: read `paths` of what is returned, not the folder. One request, and one
        for each file. `history_table` merges them, and reads what is not exported yet.

        Raises:
            IncompleteHistory: with `require_complete_history`, rows are not exported yet (retry:
                backoff).
            CommError: by the table in `errors`.
        """
        return copy_exports(
            self._reader,
            self._source,
            self.id,
            download_dir,
            require_complete=require_complete_history,
        )

    def _iter_rows(self, selection: Selection, page_size: int) -> Iterator[dict[str, Any]]:
        from wb_ops.tables.history import to_rows

        with self._read(selection) as raw:
            for merged in raw.iter_merged():
                table = raw.select(merged.table)
                for start in range(0, table.num_rows, page_size):
                    yield from to_rows(table.slice(start, page_size))

    def history(
        self,
        samples: int = 500,
        keys: Sequence[str] | None = None,
        x_axis: str = "_step",
        pandas: bool = True,
        stream: str = "default",
    ) -> pd.DataFrame | list[dict[str, Any]]:
        """Return about `samples` rows, **sampled by the server**; one request.

        With `keys` only rows that hold all of them (the server's rule). `stream="system"` gives
        the system metrics. For every row use `history_table` or `scan_history`.
        """
        rows = sampled_history(self._source, self.id, samples, keys, x_axis, stream)
        if not pandas:
            return rows
        import pandas as pd

        return pd.DataFrame.from_records(rows)
