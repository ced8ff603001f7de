"""Rows that the server has sampled; for a look, not for an export."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from wb_ops.client.operations import EVENTS, FULL_HISTORY, SAMPLED_HISTORY
from wb_ops.client.source import RunSource
from wb_ops.errors import InvalidRequest
from wb_ops.tables.values import parse_json


def sampled_history(
    source: RunSource,
    run_id: str,
    samples: int,
    keys: Sequence[str] | None,
    x_axis: str,
    stream: str,
) -> list[dict[str, Any]]:
    """Return rows that the server sampled; one request."""
    require_list(keys)
    if keys:
        if stream != "default":
            raise InvalidRequest(f"keys cannot be chosen for stream {stream!r}: leave keys out.")
        spec = {"keys": [x_axis, *(key for key in keys if key != x_axis)], "samples": samples}
        operation = source.operation(
            "RunSampledHistory", SAMPLED_HISTORY, name=run_id, specs=[json.dumps(spec)]
        )
        return list((source.fetch_run_fields(operation).get("sampledHistory") or [[]])[0])
    name, document, field = "RunFullHistory", FULL_HISTORY, "history"
    if stream != "default":
        name, document, field = "RunEvents", EVENTS, "events"
    answer = source.fetch_run_fields(source.operation(name, document, name=run_id, samples=samples))
    rows = [parse_json(row) if isinstance(row, str) else row for row in answer[field] or []]
    return [row for row in rows if isinstance(row, dict)]


def require_list(keys: Sequence[str] | None) -> None:
    """Refuse a single text: it would be taken for a list of its letters."""
    if isinstance(keys, str):
        raise InvalidRequest(f"keys={keys!r}: give a list, such as [{keys!r}].")
