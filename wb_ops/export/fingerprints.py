"""Whether a run's history has changed since it was read: the server's counters, compared."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from wb_ops.tables.values import parse_json

# States in which a run still writes, or will.
OPEN_STATES = frozenset({"running", "pending", "preempting"})


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """The counters of one history. `keys` is the exported selection; None means all."""

    lines: int
    last_step: int | None
    left_running: bool
    keys: tuple[str, ...] | None = None

    def dumps(self) -> str:
        """The form that is stored in a receipt."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def loads(cls, text: str) -> Fingerprint:
        """Read the stored form."""
        values = json.loads(text)
        keys = values.pop("keys")
        return cls(**values, keys=None if keys is None else tuple(keys))

    def covers(self, now: Fingerprint) -> bool:
        """Whether rows read at this fingerprint are all that `now` asks for."""
        same = (self.lines, self.last_step, self.left_running)
        return same == (now.lines, now.last_step, now.left_running) and _covers_keys(self, now)


def fingerprint(node: Mapping[str, Any], keys: tuple[str, ...] | None) -> Fingerprint:
    """The fingerprint of a run as the server describes it."""
    return Fingerprint(
        lines=int(node.get("historyLineCount") or 0),
        last_step=last_step(node),
        left_running=str(node.get("state")) not in OPEN_STATES,
        keys=None if keys is None else tuple(sorted(keys)),
    )


def last_step(node: Mapping[str, Any]) -> int | None:
    """The server's last step, or None where it does not say."""
    keys = node.get("historyKeys")
    parsed = parse_json(keys) if isinstance(keys, str) else keys
    step = parsed.get("lastStep") if isinstance(parsed, Mapping) else None
    return int(step) if isinstance(step, int | float) and step >= 0 else None


def wider_keys(
    one: tuple[str, ...] | None, other: tuple[str, ...] | None
) -> tuple[str, ...] | None:
    """The union of two selections: an export never takes away what another one brought."""
    if one is None or other is None:
        return None
    return tuple(sorted({*one, *other}))


def _covers_keys(held: Fingerprint, asked: Fingerprint) -> bool:
    if held.keys is None:
        return True
    return asked.keys is not None and set(asked.keys) <= set(held.keys)
