"""The parts of a run that a backfill can write, all seen alike: keys with JSON texts.

summary and config are what they are; each tag is a key that is there (`true`) or not; the notes
are one key. So comparing, merging, journaling and undoing is the same for all of them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, overload

from wb_ops.client.documents import split_members
from wb_ops.errors import MalformedResponse

if TYPE_CHECKING:
    from wb_ops.client.source import Node
    from wb_ops.client.writing import Change

Target = Literal["summary", "config", "tags", "notes"]
# A key's JSON text; None where the key is not there, or shall not be.
Texts = dict[str, str | None]

NOTES = "notes"


@dataclass(slots=True)
class Edit:
    """What to write to one run: values of ours, and members of others as they stood."""

    ours: Texts = field(default_factory=dict)
    theirs: Texts = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.ours or self.theirs)


def read_values(node: Mapping[str, Any], target: Target) -> dict[str, str]:
    """Return what a run holds: key -> JSON text of its value.

    Raises:
        MalformedResponse: the document is not a JSON object (retry: backoff).
    """
    members = read_members(node, target)
    return {key: value_of(text, target) for key, text in members.items()}


@overload
def value_of(member: str, target: Target) -> str: ...
@overload
def value_of(member: None, target: Target) -> None: ...
def value_of(member: str | None, target: Target) -> str | None:
    """The value of a member: in a config it stands beside its description."""
    if target != "config" or member is None:
        return member
    try:
        return split_members(member).get("value", member)
    except MalformedResponse:
        return member


def read_members(node: Mapping[str, Any], target: Target) -> dict[str, str]:
    """As `read_values`, but config members as the server stores them, with their description."""
    if target == "summary":
        return split_members(node.get("summaryMetrics"))
    if target == "config":
        return split_members(node.get("config"))
    if target == "tags":
        return dict.fromkeys(node.get("tags") or (), "true")
    return {NOTES: json.dumps(node["notes"])} if node.get("notes") else {}


def change_of(
    run_id: str, target: Target, edit: Edit, base: Node, *, include_running: bool
) -> Change:
    """The change that carries out an edit on the run as `base` describes it.

    Without `include_running` a run that logs again is left alone, unless all that is to be written
    are members of others that a write of ours took away.
    """
    parts = _parts_of(target, edit, base)
    # Not at the top: describing a backfill must not load the client.
    from wb_ops.client.writing import Change

    return Change(run_id, include_running=include_running or not edit.ours, **parts)


def _parts_of(target: Target, edit: Edit, base: Node) -> dict[str, Any]:
    """The fields of a `Change`."""
    everything = {**edit.ours, **edit.theirs}
    removed = frozenset(key for key, text in everything.items() if text is None)
    if target == "summary":
        return {"summary": _there(everything), "removed": removed}
    if target == "config":
        ours, theirs = _there(edit.ours), _there(edit.theirs)
        return {"config": ours, "exact_config": theirs, "removed_config": removed}
    if target == "tags":
        kept = [tag for tag in base.get("tags") or () if tag not in removed]
        added = [tag for tag in _there(everything) if tag not in kept]
        return {"fields": {"tags": [*kept, *added]}}
    text = everything[NOTES]
    # An empty text clears the notes; null would leave them as they are.
    return {"fields": {"notes": "" if text is None else json.loads(text)}}


def _there(texts: Texts) -> dict[str, str]:
    return {key: text for key, text in texts.items() if text is not None}
