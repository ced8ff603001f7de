"""A run around a write of ours: as we read it, as the write replaced it, as it was read back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wb_ops.backfill.planned import PlannedValue
from wb_ops.backfill.targets import Edit, Target, Texts, read_members, read_values
from wb_ops.client.comparison import holds, same_json
from wb_ops.client.source import Node
from wb_ops.errors import MalformedResponse


def replaced(base: Node, before: Mapping[str, Any], target: Target) -> Texts:
    """Members that others changed after we read the run and before our write replaced them.

    Raises:
        MalformedResponse: a document is not a JSON object (retry: backoff).
    """
    read, found = read_members(base, target), read_members(before, target)
    return {
        key: found.get(key)
        for key in {**read, **found}
        if not same_json(read.get(key), found.get(key))
    }


def missing(members: Mapping[str, str], node: Node, target: Target) -> dict[str, str]:
    """Members of others that a run does not have."""
    try:
        now = read_members(node, target)
    except MalformedResponse:
        return {}  # no member of an unreadable document can be put back
    return {key: text for key, text in members.items() if key not in now}


def with_owed(note: str | None, owed: Texts | None) -> str | None:
    """A note that keeps the text of members of others that are not put back."""
    if not owed:
        return note
    members = ", ".join(f"{key}: {text or '(removed)'}" for key, text in owed.items())
    told = f"replaced members of others, not put back by then: {members}"
    return told if note is None else f"{note}; {told}"


class Around:
    """Finds what others wrote meanwhile. `before` is None where the server did not say.

    Raises:
        MalformedResponse: a document is not a JSON object (retry: backoff).
    """

    def __init__(
        self, target: Target, edit: Edit, base: Node, before: Mapping[str, Any] | None, after: Node
    ) -> None:
        self._edit = edit
        self._base = read_members(base, target)
        self._after = read_members(after, target)
        self._old = read_values(base, target)
        self._now = read_values(after, target)
        self._found = {} if before is None else read_values(before, target)
        self._replaced = {} if before is None else replaced(base, before, target)

    def lost_members(self) -> Texts:
        """Members of others to put back: key -> text, None for one that they had removed."""
        lost = {
            key: text
            for key, text in self._replaced.items()
            if key not in self._edit.ours and self._is_ours(key) and not self._is(key, text)
        }
        for key, text in self._edit.theirs.items():
            if key not in lost and not self._is(key, text) and self._is(key, self._base.get(key)):
                lost[key] = text
        return lost

    def theirs(self) -> dict[str, str]:
        """New members of others that we answer for, now that our write has replaced them.

        Not those whose value others changed: which of two values is the newer one, and which a
        stale writer brought back, nobody can tell later. Those are put back at once or never.
        """
        return {
            key: text
            for key, text in self._replaced.items()
            if text is not None and key not in self._base and key not in self._edit.ours
        }

    def put_back(self) -> int:
        """How many members of others were lost and are there again."""
        return sum(self._is(key, text) for key, text in self._edit.theirs.items())

    def is_written(self, value: PlannedValue) -> bool:
        """Whether the run holds our value."""
        return holds(self._now.get(value.key), value.new)

    def is_untouched(self, value: PlannedValue) -> bool:
        """Whether the run holds what it held before our write: that was lost, or never came."""
        return same_json(self._now.get(value.key), self._old.get(value.key))

    def is_contested(self, value: PlannedValue) -> bool:
        """Whether another writer's new value of our key was replaced by ours."""
        return value.key in self._replaced and not holds(self._found.get(value.key), value.new)

    def contested(self, value: PlannedValue) -> str | None:
        """The other writer's member of our key."""
        return self._replaced[value.key]

    def _is(self, key: str, text: str | None) -> bool:
        return holds(self._after.get(key), text)

    def _is_ours(self, key: str) -> bool:
        """Whether a member is still as our write put it; else others care for it already."""
        put = self._edit.theirs.get(key, self._base.get(key))
        return self._is(key, put)
