"""A run around a write of ours: as we read it, as the write replaced it, as it was read back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wb_ops.backfill.planned import PlannedValue
from wb_ops.backfill.targets import Edit, Target, Texts, read_members, read_values, value_of
from wb_ops.client.comparison import holds, same_json
from wb_ops.client.source import Node

# Members of other writers to put back into a run, by their keys.
Owed = dict[str, PlannedValue]


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


def owed_by(run_id: str, edit: Edit, base: Node, before: Mapping[str, Any], target: Target) -> Owed:
    """What a write of ours has taken away by its own answer, before anybody looks at the run.

    Raises:
        MalformedResponse: a document is not a JSON object (retry: backoff).
    """
    held, found = read_values(base, target), read_values(before, target)
    owed: Owed = {}
    for key, text in replaced(base, before, target).items():
        if key in edit.ours and holds(found.get(key), edit.ours[key]):
            continue
        left = edit.ours.get(key, held.get(key))
        if key in edit.theirs:
            left = value_of(edit.theirs[key], target)
        owed[key] = owed_value(run_id, key, left, text, target)
    return owed


def owed_value(
    run_id: str, key: str, left: str | None, text: str | None, target: Target
) -> PlannedValue:
    """A member to put back: the value that our write left there, the text that was there."""
    return PlannedValue(run_id, key, left, text, "put_back", target=target)


def still_owed(owed: Owed, node: Node, target: Target) -> Owed:
    """Those that are as our write left them; for others somebody else has cared.

    Raises:
        MalformedResponse: the document is not a JSON object (retry: backoff).
    """
    now = read_values(node, target)
    return {key: value for key, value in owed.items() if holds(now.get(key), value.old)}


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

    def now(self, key: str) -> str | None:
        """The value that the run holds."""
        return self._now.get(key)

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
