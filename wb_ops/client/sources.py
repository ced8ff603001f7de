"""Where the rows of a run are at this moment: exported files, live rows, or both."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wb_ops.client.operations import HISTORY_COUNTERS, HISTORY_SOURCES, history_sources_of
from wb_ops.client.paging import prefers_smaller
from wb_ops.client.responses import listed
from wb_ops.client.source import RunSource
from wb_ops.errors import (
    AuthenticationFailed,
    CommError,
    InvalidRequest,
    MalformedResponse,
    RateLimited,
)
from wb_ops.tables.runs import last_step
from wb_ops.tables.values import parse_json, row_step

log = logging.getLogger("wb_ops")

# Signed URLs expire: they are asked for shortly before they are used.
RUNS_PER_REQUEST = 20


@dataclass(frozen=True, slots=True)
class HistorySources:
    """Signed URLs of exported files, the first live step, and the server's counters.

    `last_step` is None where the server does not say; `first_live_step` is None where every row
    is exported. `live_rows` is how many are not; None where the server does not name them: then
    rows may lie after `last_step`, which comes from a summary of the keys that lags behind.
    """

    line_count: int
    last_step: int | None
    urls: tuple[str, ...] = ()
    first_live_step: int | None = None
    live_rows: int | None = None


def fetch_sources(source: RunSource, run_id: str, *, has_parquet: bool) -> HistorySources:
    """Ask for the sources of one run; one request.

    Raises:
        NotFound: the run is gone (retry: never).
        InvalidRequest: with `has_parquet`, a server that has no parquet exports (retry: never).
    """
    if has_parquet:
        operation = source.operation(
            "RunParquetHistory", HISTORY_SOURCES, name=run_id, liveKeys=["_step"]
        )
    else:
        operation = source.operation("RunHistoryKeys", HISTORY_COUNTERS, name=run_id)
    return _parse(source.fetch_run_fields(operation))


def fetch_many_sources(
    source: RunSource, run_ids: Sequence[str]
) -> dict[str, HistorySources] | None:
    """Ask for the sources of up to 20 runs in one request; a run that is gone is left out.

    None from a server that refuses several runs in one request. Empty where there is no answer
    for all of them: one run may be the cause, and asked for alone it is that run's trouble.

    Raises:
        AuthenticationFailed, RateLimited: the next request would end alike.
    """
    operation = history_sources_of(source.operation, run_ids)
    try:
        project = source.fetch_project_fields(operation, prefers_smaller)
        answers = (project.get(f"run{index}") for index in range(len(run_ids)))
        return {
            run_id: _parse(answer)
            for run_id, answer in zip(run_ids, answers, strict=True)
            if answer is not None
        }
    except (AuthenticationFailed, RateLimited):
        raise
    except CommError as error:
        log.info("%s; asking run by run", error)
        return None if isinstance(error, InvalidRequest) else {}


def _parse(run: Mapping[str, Any]) -> HistorySources:
    exports = run.get("parquetHistory") or {}
    steps = [step for row in listed(exports, "liveData") if (step := _step(row)) is not None]
    urls = tuple(listed(exports, "parquetUrls"))
    if not all(isinstance(url, str) for url in urls):
        raise MalformedResponse("An exported file of a history has no address.")
    lines = int(run.get("historyLineCount") or 0)
    first_live = min(steps, default=None)
    if first_live is None and not urls and lines:
        first_live = 0
    last = last_step(run.get("historyKeys"))
    if last is not None:
        # The key summary may lag behind the rows.
        last = max([last, *steps])
    return HistorySources(lines, last, urls, first_live, len(steps) or None)


def _step(row: object) -> int | None:
    try:
        parsed = parse_json(row) if isinstance(row, str) else row
    except ValueError as exc:
        raise MalformedResponse("A live row of a history is no JSON.", exc) from exc
    return row_step(parsed)
