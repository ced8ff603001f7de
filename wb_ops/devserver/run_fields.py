"""Resolvers of ``Run`` and ``File``: history, exports, console output, files."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from contextlib import suppress

import orjson
from graphql import GraphQLError, GraphQLResolveInfo

from wb_ops.devserver.jsontext import (
    Json,
    JsonText,
    KeyCollisionError,
    flatten,
    parse_object,
    strict,
)
from wb_ops.devserver.listing import connection, decode_cursor, encode_cursor
from wb_ops.devserver.nodes import Node, file_node, project_node
from wb_ops.devserver.queries import context_of, row_of
from wb_ops.devserver.sampling import sample_evenly

DEFAULT_SAMPLES = 500
_LOG_LINE = re.compile(
    r"^(?P<level>ERROR )?(?P<time>\d{4}-\d\d-\d\dT[\d:.]+)Z? (?P<line>.*)$", re.S
)


def project(source: Node, info: GraphQLResolveInfo) -> Node | None:
    """The project that holds the run."""
    row = row_of(source)
    found = context_of(info).backend.store.find_project(row["entity"], row["project"])
    return None if found is None else project_node(found)


def wandb_config(source: Node, _info: GraphQLResolveInfo, keys: Sequence[str] | None = None) -> str:
    """The SDK's own part of the config, below the keys asked for."""
    entry = parse_object(row_of(source)["config"]).get("_wandb")
    value = entry.get("value") if isinstance(entry, dict) else None
    own = value if isinstance(value, dict) else {}
    return json.dumps({key: own[key] for key in keys or own if key in own})


def history_tail(source: Node, info: GraphQLResolveInfo) -> str:
    """The last history line, as a JSON list of JSON texts."""
    return json.dumps(context_of(info).backend.lines.history_tail(row_of(source)["pk"]))


def events_tail(source: Node, info: GraphQLResolveInfo) -> str:
    """The last line of system events, as a JSON list of JSON texts."""
    return json.dumps(context_of(info).backend.lines.events_tail(row_of(source)["pk"]))


def history_keys(source: Node, info: GraphQLResolveInfo) -> dict[str, Json] | None:
    """Every metric with its counts, and the last step; null without history."""
    return context_of(info).backend.lines.history_keys(row_of(source))


def history(
    source: Node,
    info: GraphQLResolveInfo,
    minStep: int | None = None,
    maxStep: int | None = None,
    samples: int | None = None,
) -> list[str] | JsonText:
    """The lines with ``minStep <= _step < maxStep``, thinned out beyond ``samples``."""
    lines = context_of(info).backend.lines
    count, texts = lines.read_history_json(row_of(source)["pk"], minStep, maxStep)
    wanted = DEFAULT_SAMPLES if samples is None else samples
    # A large page goes from SQLite into the answer as it is.
    return JsonText(texts) if count <= wanted else sample_evenly(orjson.loads(texts), wanted)


def sampled_history(
    source: Node, info: GraphQLResolveInfo, specs: Sequence[str]
) -> list[list[dict[str, Json]]]:
    """For each spec the rows that hold *all* its keys; ``maxStep`` is inclusive here."""
    return [_sampled(source, info, parse_object(spec)) for spec in specs]


def _sampled(
    source: Node, info: GraphQLResolveInfo, spec: dict[str, Json]
) -> list[dict[str, Json]]:
    keys = spec.get("keys")
    if not isinstance(keys, list):
        raise GraphQLError("sampledHistory: a spec needs keys")
    max_step = _whole(spec, "maxStep")
    lines = context_of(info).backend.lines.read_history(
        row_of(source)["pk"],
        _whole(spec, "minStep"),
        None if max_step is None else max_step + 1,
    )
    rows = [row for row in (_pick(text, keys) for text in lines) if row is not None]
    samples = _whole(spec, "samples")
    return sample_evenly(rows, DEFAULT_SAMPLES if samples is None else samples)


def _whole(spec: dict[str, Json], name: str) -> int | None:
    value = spec.get(name)
    return int(value) if isinstance(value, int | float) else None


def _pick(text: str, keys: list[Json]) -> dict[str, Json] | None:
    row = parse_object(text)
    with suppress(KeyCollisionError):
        row = {**flatten(row), **row}
    picked = {str(key): strict(row.get(str(key))) for key in keys}
    return None if None in picked.values() else picked


def events(source: Node, info: GraphQLResolveInfo, samples: int | None = None) -> list[str]:
    """System metrics, always sampled."""
    rows = context_of(info).backend.lines.read_stream(row_of(source)["pk"], "events")
    texts = [text for _, text in rows]
    return sample_evenly(texts, DEFAULT_SAMPLES if samples is None else samples)


def parquet_history(
    source: Node,
    info: GraphQLResolveInfo,
    liveKeys: Sequence[str],
) -> Node:
    """Signed URLs of the exported files and the live rows, projected on ``liveKeys``.

    A run without an export answers ``{"parquetUrls": [], "liveData": []}``, which the SDK takes as
    "page through all of it".
    """
    context, run = context_of(info), row_of(source)
    backend = context.backend
    if not backend.options.has_parquet:
        return {"parquetUrls": [], "liveData": []}
    export = backend.exports.export(run)
    live: list[Json] = []
    if export.is_partial:
        texts = backend.lines.read_history_after(run["pk"], export.rows)
        live = [_project(parse_object(text), liveKeys) for text in texts]
    expired = "expired_urls" in context.quirks
    urls = [
        backend.signer.url(*segments, expired=expired)
        for segments in backend.exports.segments(export)
    ]
    return {"parquetUrls": urls, "liveData": live}


def _project(row: dict[str, Json], keys: Sequence[str]) -> Json:
    return strict({key: row[key] for key in keys if key in row})


def log_lines(
    source: Node,
    info: GraphQLResolveInfo,
    first: int | None = None,
    after: str | None = None,
    last: int | None = None,
    useImprovedPagination: bool | None = None,
) -> Node | None:
    """Console output in pages or from its end; null where nothing was printed."""
    run = row_of(source)
    if run["log_count"] == 0:
        return None
    start = 0 if after is None else decode_cursor(after)
    if last is not None:
        start = max(run["log_count"] - last, 0)
    lines = context_of(info).backend.lines.read_stream(run["pk"], "log", start)
    chosen = lines if first is None else lines[:first]
    edges = [
        {"node": _log_node(number, text), "cursor": encode_cursor(number + 1)}
        for number, text in chosen
    ]
    end = edges[-1]["cursor"] if edges else None
    return {"edges": edges, "pageInfo": {"endCursor": end, "hasNextPage": len(chosen) < len(lines)}}


def _log_node(number: int, text: str) -> Node:
    match = _LOG_LINE.match(text)
    if match is None:
        return {"number": number, "timestamp": None, "level": None, "label": None, "line": text}
    return {
        "number": number,
        "timestamp": match["time"],
        "level": "error" if match["level"] else None,
        "label": None,
        "line": match["line"],
    }


def file_count(source: Node, info: GraphQLResolveInfo) -> int:
    """How many files the run has."""
    return len(context_of(info).backend.files.list_files(row_of(source)["pk"]))


def files(
    source: Node,
    info: GraphQLResolveInfo,
    names: Sequence[str | None] | None = None,
    after: str | None = None,
    first: int | None = None,
    pattern: str | None = None,
) -> Node:
    """The run's files in pages; names that were never uploaded get an empty entry."""
    context, run = context_of(info), row_of(source)
    stored = {row["name"]: row for row in context.backend.files.list_files(run["pk"])}
    chosen = [name for name in names if name is not None] if names else list(stored)
    if pattern:
        matches = _like(pattern)
        chosen = [name for name in chosen if matches.fullmatch(name)]
    return connection(
        chosen, lambda name: file_node(context, run, name, stored.get(name)), first, after
    )


def _like(pattern: str) -> re.Pattern[str]:
    parts = [{"%": ".*", "_": "."}.get(sign, re.escape(sign)) for sign in pattern]
    return re.compile("".join(parts), re.S | re.I)


def file_url(source: Node, _info: GraphQLResolveInfo, upload: bool | None = None) -> object:
    """The address to read a file from, or with ``upload`` to write it to."""
    return source["_uploadUrl"] if upload else source["url"]
