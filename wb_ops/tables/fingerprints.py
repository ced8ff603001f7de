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
        redacted: whether values that look like secrets were taken out.
    """

    lines: int
    last_step: int | None
    left_running: bool
    origin: str = ""
    heartbeat_at: str | None = None
    keys: tuple[str, ...] | None = None
    redacted: bool = False

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
        same = replace(self, keys=now.keys, redacted=now.redacted) == now
        return same and _covers_keys(self, now) and self.redacted >= now.redacted

    def is_continued_by(self, now: Fingerprint) -> bool:
        """Whether `now` is the same running history with more rows at its end."""
        if self.left_running or now.left_running or self.origin != now.origin:
            return False
        if self.last_step is None or now.last_step is None:
            return False
        grows = now.lines >= self.lines and now.last_step >= self.last_step
        return grows and _covers_keys(self, now) and self.redacted >= now.redacted


def fingerprint(
    node: Mapping[str, Any], keys: tuple[str, ...] | None, *, redacted: bool = False
) -> Fingerprint:
    """The fingerprint of a run as the server describes it."""
    has_ended = str(node.get("state")) not in OPEN_STATES
    return Fingerprint(
        lines=int(node.get("historyLineCount") or 0),
        last_step=last_step(node.get("historyKeys")),
        left_running=has_ended,
        origin=f"{node.get('id')}@{node.get('createdAt')}",
        heartbeat_at=str(node.get("heartbeatAt")) if has_ended else None,
        keys=None if keys is None else tuple(sorted(keys)),
        redacted=redacted,
    )


def system_fingerprint(node: Mapping[str, Any]) -> str:
    """What tells one state of a run's system metrics from another: it moves while the run does."""
    return "|".join(str(node.get(name)) for name in ("id", "createdAt", "state", "heartbeatAt"))


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
