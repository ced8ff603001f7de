"""Writes to runs: read fresh, change our members only, send, read back, compare."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from wb_ops.client.changes import Change, inputs_of, merged_tags, wrapped
from wb_ops.client.comparison import holds
from wb_ops.client.documents import split_members
from wb_ops.client.mutations import upsert_buckets
from wb_ops.client.operations import Operation, runs_by_id
from wb_ops.client.source import RunSource
from wb_ops.client.transport import Transport
from wb_ops.errors import (
    CommError,
    InvalidRequest,
    MalformedResponse,
    NotFound,
    OutcomeUnknown,
)

__all__ = [
    "Change",
    "Written",
    "check_watching",
    "read_runs",
    "replaced_by",
    "send_changes",
    "write_changes",
    "write_run",
]

log = logging.getLogger("wb_ops")

# The field that is sent -> the field that is read back.
_READ_NAMES = {"groupName": "group"}


@dataclass(frozen=True, slots=True)
class Written:
    """What became of one change: the run as read back, and the names that do not hold.

    `node` is None if the run does not exist (any more), or if the server cannot give it: then
    `error` says why. `unverified` is empty on success.
    """

    run_id: str
    node: dict[str, Any] | None
    unverified: tuple[str, ...] = ()
    error: CommError | None = None


def write_changes(
    transport: Transport,
    source: RunSource,
    changes: Sequence[Change],
    fresh: Mapping[str, Mapping[str, Any]],
) -> list[Written]:
    """Merge each change into the fresh document of its run; two requests for all of them.

    `fresh` holds the runs as just read (`source.fetch_nodes`). A run that is missing there is
    not written. A lost answer is settled by what is read back.

    Raises:
        PermissionDenied: a run is read-only for this key (retry: never).
        OutcomeUnknown: reading back failed (retry: verify).
    """
    present = [change for change in changes if change.run_id in fresh]
    if present:
        try:
            send_changes(transport, source, present, fresh)
        except OutcomeUnknown as error:
            log.warning("%s; reading back to see what was written", error)
    broken: dict[str, CommError] = {}
    try:
        run_ids = [change.run_id for change in present]
        after = source.fetch_nodes(run_ids, on_broken=broken.__setitem__)
    except CommError as error:
        if not error.advice.retryable:
            raise
        raise OutcomeUnknown(
            f"{source.path}: what was written cannot be read back: {error}",
            operation=error.operation,
            path=source.path,
        ) from error
    return [
        replace(_written(change, after.get(change.run_id)), error=broken.get(change.run_id))
        for change in changes
    ]


def write_run(source: RunSource, change: Change) -> dict[str, Any]:
    """Read one run, write a change to it, and return it as read back; three requests.

    Raises:
        NotFound: the run was deleted meanwhile (retry: never).
        OutcomeUnknown: what is read back is not what was written (retry: verify).
        CommError: as `write_changes`.
    """
    fresh = {change.run_id: source.fetch_node(change.run_id)}
    written = write_changes(source.transport, source, [change], fresh)[0]
    path = f"{source.path}/{change.run_id}"
    if written.error is not None:
        raise OutcomeUnknown(
            f"Run {path} cannot be read back: {written.error} Read it later and compare.",
            path=path,
        ) from written.error
    if written.node is None:
        raise NotFound(f"Run {path} was deleted while it was written to.", path=path)
    if written.unverified:
        raise OutcomeUnknown(
            f"Run {path} does not hold what was written: {', '.join(written.unverified)}. "
            "Another writer may have changed it; read it and decide.",
            path=path,
        )
    return written.node


def read_runs(source: RunSource, run_ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return the newest state of a batch of runs; an id that does not exist is left out.

    One request, however many runs the project has; one more on a server that refuses to look up
    several runs in a request.
    """
    try:
        project = source.fetch_project_fields(runs_by_id(source.operation, run_ids))
    except InvalidRequest as error:
        log.info("%s; asking with a filter", error)
        return source.fetch_nodes(run_ids)
    nodes = (project.get(f"run{index}") for index in range(len(run_ids)))
    return {run_id: node for run_id, node in zip(run_ids, nodes, strict=True) if node}


def send_changes(
    transport: Transport,
    source: RunSource,
    changes: Sequence[Change],
    fresh: Mapping[str, Mapping[str, Any]],
    *,
    watch: bool = False,
) -> dict[str, dict[str, Any]]:
    """Merge each change into the fresh document of its run and send all; one request.

    With `watch`, returns for each run the changed fields as they were on the server directly
    before this write replaced them: what differs there from `fresh` was written by others
    meanwhile and is lost unless it is written again.

    After a wait (for a request limit, or for another attempt) the runs are read again first.

    Raises:
        PermissionDenied: a run is read-only for this key (retry: never).
        CommError: by the table in `errors`. The changes before a run that the server refuses,
            and those after it, may have been carried out: read back.
    """

    def merge(nodes: Mapping[str, Mapping[str, Any]]) -> Operation:
        inputs = [inputs_of(change, nodes[change.run_id]) for change in changes]
        return upsert_buckets(inputs, watch=watch)

    data = transport.execute_fresh(
        merge(fresh), lambda: merge(_fetch_all(source, changes)), source.path
    )
    return replaced_by(changes, data)


def replaced_by(changes: Sequence[Change], data: object) -> dict[str, dict[str, Any]]:
    """Return what the server says that it held before each change; `data` may be partial."""
    answers = data if isinstance(data, Mapping) else {}
    befores = {
        change.run_id: (answers.get(f"before{index}") or {}).get("bucket")
        for index, change in enumerate(changes)
    }
    return {run_id: bucket for run_id, bucket in befores.items() if bucket}


def check_watching(
    transport: Transport, source: RunSource, fresh: Iterable[Mapping[str, Any]]
) -> None:
    """Ask the server to say what writes replace, with a mutation that changes no field.

    Raises:
        InvalidRequest: it does not do that (retry: never).
    """
    inputs = [{"id": node["id"]} for node in fresh]
    transport.execute(upsert_buckets(inputs, watch=True), source.path)


def _fetch_all(source: RunSource, changes: Sequence[Change]) -> dict[str, dict[str, Any]]:
    """The runs as they are now, because a write had to wait."""
    nodes = source.fetch_nodes([change.run_id for change in changes])
    for change in changes:
        if change.run_id not in nodes:
            path = f"{source.path}/{change.run_id}"
            raise NotFound(f"Run {path} was deleted before it was written to.", path=path)
    return nodes


def _written(change: Change, node: dict[str, Any] | None) -> Written:
    if node is None:
        return Written(change.run_id, None)
    in_summary = (*change.summary, *change.removed)
    in_config = (*change.config, *change.exact_config, *change.removed_config)
    try:
        summary = split_members(node.get("summaryMetrics")) if in_summary else {}
        config = split_members(node.get("config")) if in_config else {}
    except MalformedResponse:
        return Written(change.run_id, node, (*in_summary, *in_config))
    wrong = [
        *_differing(change.summary, summary),
        *(name for name in change.removed if name in summary),
        *_differing({**wrapped(change.config, config), **change.exact_config}, config),
        *(name for name in change.removed_config if name in config),
        *(
            name
            for name, value in change.fields.items()
            if not _same_field(value, node.get(_READ_NAMES.get(name, name)))
        ),
        *(["tags"] if merged_tags(change, node) != (node.get("tags") or []) else []),
    ]
    return Written(change.run_id, node, tuple(wrong))


def _same_field(sent: object, read: object) -> bool:
    return sent == read or (not sent and not read)


def _differing(sent: Mapping[str, str], read: Mapping[str, str]) -> Iterable[str]:
    return (name for name, text in sent.items() if not holds(read.get(name), text))
