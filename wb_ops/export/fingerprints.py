"""Whether a run's history has changed since it was read: the server's counters, compared."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from wb_ops.tables.runs import OPEN_STATES, last_step


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What tells one state of a history from another.

    Attributes:
        lines, last_step: the server's counters.
        left_running: whether the run has ended.
        origin: the run's global id and creation, which a run that was deleted and made again
            under the same run id does not share.
        heartbeat_at: of a run that has ended; one that logs moves it all the time.
        keys: the exported selection; None means all.
    """

    lines: int
    last_step: int | None
    left_running: bool
    origin: str = ""
    heartbeat_at: str | None = None
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
        return replace(self, keys=now.keys) == now and _covers_keys(self, now)


def fingerprint(node: Mapping[str, Any], keys: tuple[str, ...] | None) -> Fingerprint:
    """The fingerprint of a run as the server describes it."""
    has_ended = str(node.get("state")) not in OPEN_STATES
    return Fingerprint(
        lines=int(node.get("historyLineCount") or 0),
        last_step=last_step(node.get("historyKeys")),
        left_running=has_ended,
        origin=f"{node.get('id')}@{node.get('createdAt')}",
        heartbeat_at=str(node.get("heartbeatAt")) if has_ended else None,
        keys=None if keys is None else tuple(sorted(keys)),
    )


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
