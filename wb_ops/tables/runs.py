"""Run objects of the server's GraphQL answers -> the `runs` table."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

import orjson
import pyarrow as pa

from wb_ops.tables.schemas import RUNS
from wb_ops.tables.times import parse_server_time
from wb_ops.tables.values import (
    encode_document,
    escape_text,
    number_or_none,
    parse_document,
    parse_json,
    pointers_text,
)

# members of the config document that describe the logging process, not the experiment
_INTERNAL_CONFIG = ("_wandb", "wandb_version")

# text fields of a run object that the content hash begins with, and all text fields
_LABELS = ("displayName", "state", "group", "jobType", "sweepName")
_TEXTS = ("name", *_LABELS, "notes", "commit")

# States in which a run still writes, or will.
OPEN_STATES = frozenset({"running", "pending", "preempting"})


@dataclass(frozen=True, slots=True)
class RunRow:
    """One row of `runs`, before it belongs to a load.

    Attributes are the columns of `schemas.RUNS` (`floats` is `_floats`), and `escaped`: how many
    unstorable characters were escaped in all its texts.
    """

    entity: str
    project: str
    run_id: str
    display_name: str | None
    state: str | None
    run_group: str | None
    job_type: str | None
    sweep: str | None
    tags: list[str]
    notes: str | None
    commit: str | None
    username: str | None
    created_at: datetime | None
    heartbeat_at: datetime | None
    runtime_s: float | None
    history_rows: int | None
    last_step: int | None
    config: str
    summary: str
    floats: str | None
    content_hash: str
    escaped: int


def runs_table(
    nodes: Iterable[Mapping[str, object]], *, entity: str, project: str, load_id: str | None
) -> pa.Table:
    """Turn GraphQL run objects into a table in the schema `RUNS`, in the given order.

    Raises:
        ValueError: a run object cannot be read; the message names the run.
    """
    rows = [run_row(node, entity=entity, project=project) for node in nodes]
    constant = {"deleted_at": None, "_load_id": load_id}
    columns = []
    for field in RUNS:
        if field.name in constant:
            values: list[object] = [constant[field.name]] * len(rows)
        else:
            attribute = "floats" if field.name == "_floats" else field.name
            values = [getattr(row, attribute) for row in rows]
        columns.append(pa.array(values, field.type))
    return pa.table(columns, schema=RUNS)


def run_row(node: Mapping[str, object], *, entity: str, project: str) -> RunRow:
    """Turn one GraphQL run object into a row; fields that are not known are ignored.

    A missing or null config or summary is the empty object; null tags are no tags.

    Args:
        node: `name`, `displayName`, `state`, `config`, `summaryMetrics`, `historyKeys`, ...
        entity: owner of the project.
        project: the project.

    Raises:
        ValueError: a document, time or id cannot be read; the message names the run.
    """
    try:
        return _run_row(node, entity, project)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"run {node.get('name')!r}: {error}") from error


def _run_row(node: Mapping[str, object], entity: str, project: str) -> RunRow:
    config, is_plain_config = _object(_text(node, "config"), "config")
    config = _unwrapped(config)
    summary, is_plain_summary = _object(_text(node, "summaryMetrics"), "summary")
    config_document = encode_document(config, "/config", is_plain=is_plain_config)
    summary_document = encode_document(summary, "/summary", is_plain=is_plain_summary)
    told = {field: _text(node, field) for field in _TEXTS} | {"username": _username(node)}
    tags = _tags(node)
    texts, escaped = _storable(told)
    tag_texts = [escape_text(tag) for tag in tags]
    return RunRow(
        entity=escape_text(entity)[0],
        project=escape_text(project)[0],
        run_id=_required(texts, "name"),
        display_name=texts["displayName"],
        state=texts["state"],
        run_group=texts["group"],
        job_type=texts["jobType"],
        sweep=texts["sweepName"],
        tags=[text for text, _ in tag_texts],
        notes=texts["notes"],
        commit=texts["commit"],
        username=texts["username"],
        created_at=server_time(node, "createdAt"),
        heartbeat_at=server_time(node, "heartbeatAt"),
        runtime_s=_runtime_s(summary),
        history_rows=_integer(node.get("historyLineCount")),
        last_step=last_step(node.get("historyKeys")),
        config=config_document.text,
        summary=summary_document.text,
        floats=pointers_text((*config_document.floats, *summary_document.floats)),
        content_hash=_hashed(
            [*(told[field] for field in _LABELS), sorted(tags), told["notes"], told["commit"],
             told["username"], config, summary],
            is_plain=is_plain_config and is_plain_summary,
        ),
        escaped=sum(
            (escaped, *(count for _, count in tag_texts),
             config_document.escaped, summary_document.escaped)
        ),
    )  # fmt: skip


def unwrap_config(text: str | None) -> dict[str, object]:
    """Read a config document and take each value out of its `{"value": ...}` wrapper, once.

    A value that is no such wrapper is kept as it is; `_wandb` and `wandb_version` are left out.

    Raises:
        ValueError: the text is no JSON object.

    Source: the SDK's unwrapping. Done twice, as the SDK does for `api.runs(lazy=False)`, it
    damages a config value that itself has a member called `value`.
    """
    return _unwrapped(_object(text, "config")[0])


def _unwrapped(config: Mapping[str, object]) -> dict[str, object]:
    return {
        key: unwrap_member(value) for key, value in config.items() if key not in _INTERNAL_CONFIG
    }


def unwrap_member(value: object) -> object:
    """The value of one member of a config document."""
    return value["value"] if isinstance(value, dict) and "value" in value else value


def server_time(node: Mapping[str, object], field: str) -> datetime | None:
    """Read a field of a GraphQL object that is a time, as `parse_server_time`; None without it.

    Raises:
        ValueError: the field is no text, or no time.
    """
    text = _text(node, field)
    return parse_server_time(text) if text else None


def _hashed(content: list[object], *, is_plain: bool) -> str:
    """Hash what people can see of a run, so that two hashes are equal when nothing changed.

    Types count: `1`, `1.0`, `"1"` and `true` differ, NaN equals NaN and not the string "NaN".
    The order of keys does not count.
    """
    try:
        if not is_plain:
            json.dumps(content, allow_nan=False)  # orjson would write null for a special float
        canonical = orjson.dumps(content, option=orjson.OPT_SORT_KEYS)
    except (ValueError, TypeError):
        # Python's own JSON form keeps every type apart and writes a special float as a bare token
        text = json.dumps(content, sort_keys=True, separators=(",", ":"))
        canonical = text.encode("ascii")
    return hashlib.sha256(canonical).hexdigest()


def _storable(texts: Mapping[str, str | None]) -> tuple[Mapping[str, str | None], int]:
    """The texts in storable form, and how many characters were escaped."""
    together = "".join(filter(None, texts.values()))
    if escape_text(together)[1] == 0:
        return texts, 0
    escaped = {field: None if text is None else escape_text(text) for field, text in texts.items()}
    storable = {field: None if pair is None else pair[0] for field, pair in escaped.items()}
    return storable, sum(pair[1] for pair in escaped.values() if pair is not None)


def _required(texts: Mapping[str, str | None], field: str) -> str:
    text = texts[field]
    if not text:
        raise ValueError(f"the field {field} is missing")
    return text


def _text(node: Mapping[str, object], field: str) -> str | None:
    value = node.get(field)
    if value is None or isinstance(value, str):
        return value
    raise ValueError(f"the field {field} is {type(value).__name__}, expected text")


def _object(text: str | None, what: str) -> tuple[dict[str, object], bool]:
    """The members of a document, and whether they are plain; see `parse_document`."""
    value, is_plain = parse_document(text) if text else ({}, True)
    if value is None:
        return {}, True
    if not isinstance(value, dict):
        raise ValueError(f"the {what} is a JSON {type(value).__name__}, expected an object")
    return value, is_plain


def _tags(node: Mapping[str, object]) -> list[str]:
    tags = node.get("tags") or []
    if not isinstance(tags, list):
        raise ValueError(f"tags is {type(tags).__name__}, expected a list")
    return [str(tag) for tag in tags]


def _username(node: Mapping[str, object]) -> str | None:
    user = node.get("user")
    return _text(user, "username") if isinstance(user, Mapping) else None


def _integer(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _runtime_s(summary: Mapping[str, object]) -> float | None:
    runtime_s = number_or_none(summary.get("_runtime"))
    if runtime_s is not None:
        return runtime_s
    internal = summary.get("_wandb")
    return number_or_none(internal.get("runtime")) if isinstance(internal, dict) else None


def read_history_keys(history_keys: object) -> dict[str, object] | None:
    """Read `historyKeys`, None where the server does not say.

    Source: the server sends an object, its text, or null.
    """
    if isinstance(history_keys, str):
        try:
            history_keys = parse_json(history_keys)
        except ValueError:
            return None
    return history_keys if isinstance(history_keys, dict) else None


def last_step(history_keys: object) -> int | None:
    """Read `historyKeys.lastStep`, None where the server does not say; -1 is no history."""
    step = (read_history_keys(history_keys) or {}).get("lastStep")
    whole = _integer(int(step) if isinstance(step, float) and step.is_integer() else step)
    return whole if whole is not None and whole >= 0 else None
