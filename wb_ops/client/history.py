"""Reads the whole history of a run: exported parquet files and live rows, never sampled.

W&B exports a run's rows to parquet files some time after they are logged. What is not exported
yet is "live" and is read by windows of steps.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from wb_ops.client.operations import (
    EVENTS,
    FULL_HISTORY,
    HISTORY_COUNTERS,
    HISTORY_SOURCES,
    SAMPLED_HISTORY,
)
from wb_ops.client.source import RunSource
from wb_ops.client.windows import read_windows
from wb_ops.errors import InvalidRequest, MalformedResponse, PermissionDenied
from wb_ops.tables.history import MergedHistory, live_table, merge_parts, select_keys
from wb_ops.tables.values import parse_json

log = logging.getLogger("wb_ops")

URL_ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class Sources:
    """Where a run's rows are right now, and the server's counters of that moment."""

    line_count: int
    last_step: int | None
    urls: tuple[str, ...] = ()
    first_live_step: int | None = None

    @property
    def is_exported(self) -> bool:
        """Whether any row has been exported to parquet."""
        return bool(self.urls)


@dataclass(frozen=True, slots=True)
class RawHistory:
    """The rows of one run as they came: parquet parts in file order, then live rows.

    `source` is parquet, live (windows after the parquet files), paged (windows only) or
    parquet+live. `keys` is the selection that `merged` applies.
    """

    path: str
    parts: tuple[pa.Table, ...]
    source: str
    size_bytes: int
    keys: tuple[str, ...] | None = None

    def merged(self) -> MergedHistory:
        """Merge the parts into one row a step; later parts win per key.

        Raises:
            MalformedResponse: a row has no usable `_step` (retry: backoff).
        """
        try:
            history = merge_parts(self.parts)
        except ValueError as exc:
            raise MalformedResponse(
                f"The rows of {self.path} cannot be merged: {exc}", exc
            ) from exc
        if self.keys is None:
            return history
        return replace(history, table=select_keys(history.table, self.keys))


@dataclass(slots=True)
class HistoryReader:
    """Reads histories with a bounded number of threads; shared by all runs of an Api."""

    max_workers: int
    use_parquet: bool = True
    _executor: Executor | None = field(default=None, repr=False)

    def read(
        self,
        source: RunSource,
        run_id: str,
        keys: Sequence[str] | None = None,
        min_step: int | None = None,
        max_step: int | None = None,
    ) -> RawHistory:
        """Read every row with min_step <= `_step` < max_step.

        Raises:
            CommError: NotFound for a run that is gone; else by the table in `errors`.
        """
        for attempt in range(1, URL_ATTEMPTS + 1):
            sources = self._fetch_sources(source, run_id)
            try:
                files = self._download(source, run_id, sources.urls)
                break
            except PermissionDenied:
                if attempt == URL_ATTEMPTS:
                    raise
                log.info("%s/%s: a signed URL has expired; asking again", source.path, run_id)
        first_live = _first_live_step(sources)
        live = [] if first_live is None else self._live(source, run_id, sources, first_live)
        parts = [_read_parquet(body) for body in files]
        if live:
            parts.append(_live_part(live))
        return RawHistory(
            path=f"{source.path}/{run_id}",
            parts=tuple(_between(part, min_step, max_step) for part in parts),
            source=_source_name(sources, bool(live)),
            size_bytes=sum(map(len, files)) + sum(map(len, live)),
            keys=None if keys is None else tuple(keys),
        )

    def close(self) -> None:
        """End the threads."""
        if self._executor is not None:
            self._executor.shutdown()
            self._executor = None

    def _pool(self) -> Executor:
        if self._executor is None:
            self._executor = ThreadPoolExecutor(self.max_workers, "wb_ops-history")
        return self._executor

    def _fetch_sources(self, source: RunSource, run_id: str) -> Sources:
        if self.use_parquet:
            try:
                return _parse_sources(
                    source.fetch_run_fields(
                        source.operation(
                            "RunParquetHistory", HISTORY_SOURCES, name=run_id, liveKeys=["_step"]
                        )
                    )
                )
            except InvalidRequest as error:
                if "parquetHistory" not in error.message:
                    raise
                log.info("this server has no parquet exports; reading by windows of steps")
                self.use_parquet = False
        operation = source.operation("RunHistoryKeys", HISTORY_COUNTERS, name=run_id)
        return _parse_sources(source.fetch_run_fields(operation))

    def _download(self, source: RunSource, run_id: str, urls: Sequence[str]) -> list[bytes]:
        path = f"{source.path}/{run_id}"
        return list(self._pool().map(lambda url: source.transport.download(url, path), urls))

    def _live(self, source: RunSource, run_id: str, sources: Sources, first_step: int) -> list[str]:
        return list(
            chain.from_iterable(
                read_windows(
                    self._pool(), source, run_id, first_step, sources.last_step,
                    sources.line_count,
                )
            )
        )  # fmt: skip


def _parse_sources(run: Mapping[str, Any]) -> Sources:
    exports = run.get("parquetHistory") or {}
    live = exports.get("liveData") or []
    steps = [step for row in live if (step := _step_of(row)) is not None]
    return Sources(
        line_count=int(run.get("historyLineCount") or 0),
        last_step=_last_step(run.get("historyKeys")),
        urls=tuple(exports.get("parquetUrls") or ()),
        first_live_step=min(steps, default=None),
    )


def _step_of(row: object) -> int | None:
    parsed = parse_json(row) if isinstance(row, str) else row
    step = parsed.get("_step") if isinstance(parsed, dict) else None
    return int(step) if isinstance(step, int | float) else None


def _last_step(keys: object) -> int | None:
    parsed = parse_json(keys) if isinstance(keys, str) else keys
    step = parsed.get("lastStep") if isinstance(parsed, dict) else None
    return int(step) if isinstance(step, int | float) and step >= 0 else None


def _first_live_step(sources: Sources) -> int | None:
    """The step from which rows must be read live, or None if all are exported."""
    if sources.first_live_step is not None:
        return sources.first_live_step
    if sources.is_exported or sources.line_count == 0:
        return None
    return 0


def _read_parquet(body: bytes) -> pa.Table:
    try:
        return pq.read_table(pa.BufferReader(body))
    except (pa.ArrowInvalid, OSError) as exc:
        raise MalformedResponse(
            f"A history export of {len(body)} bytes is not a whole parquet file.", exc
        ) from exc


def _live_part(rows: Sequence[str]) -> pa.Table:
    try:
        return live_table(rows)
    except ValueError as exc:
        raise MalformedResponse(f"The live rows cannot be read: {exc}", exc) from exc


def _between(part: pa.Table, min_step: int | None, max_step: int | None) -> pa.Table:
    if min_step is None and max_step is None:
        return part
    step = pc.cast(part["_step"], pa.int64())
    if min_step is not None:
        part = part.filter(pc.greater_equal(step, min_step))
        step = pc.cast(part["_step"], pa.int64())
    return part if max_step is None else part.filter(pc.less(step, max_step))


def _source_name(sources: Sources, has_live: bool) -> str:
    if not sources.is_exported:
        return "paged"
    return "parquet+live" if has_live else "parquet"


def sampled_history(
    source: RunSource, run_id: str, samples: int, keys: Sequence[str] | None, x_axis: str,
    stream: str,
) -> list[dict[str, Any]]:  # fmt: skip
    """Return rows that the server sampled; one request."""
    if keys is not None:
        if stream != "default":
            raise InvalidRequest(f"keys cannot be chosen for stream {stream!r}: leave keys out.")
        spec = {"keys": [x_axis, *(key for key in keys if key != x_axis)], "samples": samples}
        operation = source.operation(
            "RunSampledHistory", SAMPLED_HISTORY, name=run_id, specs=[json.dumps(spec)]
        )
        return list((source.fetch_run_fields(operation).get("sampledHistory") or [[]])[0])
    name, document = ("RunFullHistory", FULL_HISTORY)
    field_name = "history"
    if stream != "default":
        name, document, field_name = "RunEvents", EVENTS, "events"
    fields = source.fetch_run_fields(source.operation(name, document, name=run_id, samples=samples))
    rows = [parse_json(row) if isinstance(row, str) else row for row in fields[field_name] or []]
    return [row for row in rows if isinstance(row, dict)]
