"""What to change of one run, merged into its documents as they are on the server."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from wb_ops.client.documents import splice, split_members
from wb_ops.errors import InvalidRequest, MalformedResponse, PermissionDenied
from wb_ops.tables.runs import OPEN_STATES

log = logging.getLogger("wb_ops")


@dataclass(frozen=True, slots=True)
class Change:
    """What to change of one run. Values of `summary` and `config` are JSON texts.

    `exact_config` holds whole members of the config as the server stores them, with value and
    description. Tags are a set to which others add too: only what is added and removed is given.
    Without `include_running`, a run that still runs is not written to.
    """

    run_id: str
    summary: Mapping[str, str] = field(default_factory=dict)
    removed: frozenset[str] = frozenset()
    config: Mapping[str, str] = field(default_factory=dict)
    exact_config: Mapping[str, str] = field(default_factory=dict)
    removed_config: frozenset[str] = frozenset()
    added_tags: tuple[str, ...] = ()
    removed_tags: frozenset[str] = frozenset()
    include_running: bool = True
    fields: Mapping[str, object] = field(default_factory=dict)


def inputs_of(change: Change, node: Mapping[str, Any]) -> dict[str, object]:
    """Merge a change into a run as just read: the fields to send, each whole.

    Raises:
        PermissionDenied: the run is read-only for this key (retry: never).
        InvalidRequest: the run still runs, and the change does not say `include_running`
            (retry: never).
    """
    if node.get("readOnly"):
        raise PermissionDenied(f"Run {change.run_id} is read-only for this key.")
    if node.get("state") in OPEN_STATES and not change.include_running:
        raise InvalidRequest(
            f"Run {change.run_id} is {node['state']}: what it writes itself and this change would "
            "replace each other. Wait for its end, or say update(..., include_running=True)."
        )
    inputs: dict[str, object] = {"id": node["id"], **change.fields}
    if change.added_tags or change.removed_tags:
        inputs["tags"] = merged_tags(change, node)
    if change.summary or change.removed:
        inputs["summaryMetrics"] = splice(
            node.get("summaryMetrics"), change.summary, change.removed
        )
    if change.config or change.exact_config or change.removed_config:
        there = split_members(node.get("config"))
        members = {**wrapped(change.config, there), **change.exact_config}
        inputs["config"] = splice(node.get("config"), members, change.removed_config)
    return inputs


def wrapped(config: Mapping[str, str], there: Mapping[str, str]) -> dict[str, str]:
    """Members of a config as the server stores them: a description that is there stays."""
    return {name: _member(text, there.get(name)) for name, text in config.items()}


def _member(text: str, there: str | None) -> str:
    try:
        if "value" in split_members(there):
            return splice(there, {"value": text})
    except MalformedResponse:
        log.debug("A member of a config is no object; it is replaced.")
    return f'{{"value": {text}, "desc": null}}'


def merged_tags(change: Change, node: Mapping[str, Any]) -> list[str]:
    """The run's tags after the change; tags of others stay."""
    kept = [tag for tag in node.get("tags") or [] if tag not in change.removed_tags]
    return kept + [tag for tag in change.added_tags if tag not in kept]
