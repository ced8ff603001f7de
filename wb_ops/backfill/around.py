"""A run around a write of ours: as we read it, as the write replaced it, as it was read back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wb_ops.backfill.planned import PlannedValue
from wb_ops.backfill.targets import Edit, Target, Texts, read_members, read_values
from wb_ops.client.source import Node
from wb_ops.client.writing import same_json


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
        self._replaced: Texts = {}
        if before is not None:
            found = read_members(before, target)
            self._replaced = {
                key: found.get(key)
                for key in {**self._base, **found}
                if not same_json(self._base.get(key), found.get(key))
            }

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
        return same_json(self._now.get(value.key), value.new)

    def is_untouched(self, value: PlannedValue) -> bool:
        """Whether the run holds what it held before our write: that was lost, or never came."""
        return same_json(self._now.get(value.key), self._old.get(value.key))

    def is_as_read(self, key: str) -> bool:
        """Whether a member is still what it was when we read the run."""
        return self._is(key, self._base.get(key))

    def is_contested(self, value: PlannedValue) -> bool:
        """Whether another writer's new value of our key was replaced by ours."""
        return value.key in self._replaced and not same_json(self._found.get(value.key), value.new)

    def contested(self, value: PlannedValue) -> str | None:
        """The other writer's member of our key."""
        return self._replaced[value.key]

    def _is(self, key: str, text: str | None) -> bool:
        return same_json(self._after.get(key), text)

    def _is_ours(self, key: str) -> bool:
        """Whether a member is still as our write put it; else others care for it already."""
        put = self._edit.theirs.get(key, self._base.get(key))
        return self._is(key, put)
