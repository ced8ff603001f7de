"""Rows that the server has sampled; for a look, not for an export."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from wb_ops.client.operations import EVENTS, FULL_HISTORY, SAMPLED_HISTORY
from wb_ops.client.responses import listed
from wb_ops.client.source import RunSource
from wb_ops.client.texts import texts_of
from wb_ops.errors import InvalidRequest, MalformedResponse
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
    chosen = chosen_keys(keys)
    if chosen:
        if stream != "default":
            raise InvalidRequest(f"keys cannot be chosen for stream {stream!r}: leave keys out.")
        spec = {"keys": [x_axis, *(key for key in chosen if key != x_axis)], "samples": samples}
        operation = source.operation(
            "RunSampledHistory", SAMPLED_HISTORY, name=run_id, specs=[json.dumps(spec)]
        )
        # One list for each spec.
        return _rows(next(iter(listed(source.fetch_run_fields(operation), "sampledHistory")), []))
    name, document, field = "RunFullHistory", FULL_HISTORY, "history"
    if stream != "default":
        name, document, field = "RunEvents", EVENTS, "events"
    answer = source.fetch_run_fields(source.operation(name, document, name=run_id, samples=samples))
    return _rows(listed(answer, field))


def _rows(rows: object) -> list[dict[str, Any]]:
    """The rows of an answer, whose members are objects or their JSON."""
    try:
        members = rows if isinstance(rows, list) else []
        parsed = [parse_json(row) if isinstance(row, str) else row for row in members]
    except ValueError as exc:
        raise MalformedResponse("A row of a sampled history is no JSON.", exc) from exc
    return [row for row in parsed if isinstance(row, dict)]


def chosen_keys(keys: Sequence[str] | None) -> tuple[str, ...] | None:
    """Return the keys that are asked for; none at all means all of them, as in W&B's SDK.

    Raises:
        InvalidRequest: no list of texts (retry: never).
    """
    return None if keys is None else texts_of("keys", keys) or None
