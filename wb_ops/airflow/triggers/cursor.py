"""How far the watcher of a project has come, as a value that survives a restart."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

# A run is marked as crashed minutes after its last heartbeat, and servers see changes with a lag.
OVERLAP = timedelta(minutes=30)
# Airflow's state store takes 64 KB.
MAX_SEEN = 400


@dataclass(frozen=True, slots=True)
class EndedRun:
    """A run that is in a terminal state, and when it last wrote (server time)."""

    run_id: str
    name: str
    state: str
    heartbeat_at: datetime

    @property
    def ending(self) -> str:
        """What tells this end of the run from another one, after it was resumed."""
        return f"{self.state} {self.heartbeat_at.isoformat()}"


@dataclass(frozen=True, slots=True)
class Cursor:
    """What has been announced already.

    Attributes:
        since: ends before this moment (server time) are not looked at again.
        seen: run id -> its ending, of the runs after `since`.
    """

    since: datetime
    seen: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def start(cls, now: datetime) -> Cursor:
        """Where a watcher begins that never ran: with the runs of the last half hour."""
        return cls(now - OVERLAP)

    @classmethod
    def load(cls, document: Mapping[str, Any]) -> Cursor:
        """Read what `dump` wrote."""
        return cls(datetime.fromisoformat(document["since"]), dict(document["seen"]))

    def dump(self) -> dict[str, Any]:
        """Return JSON values."""
        return {"since": self.since.isoformat(), "seen": dict(self.seen)}

    def news(self, runs: Iterable[EndedRun]) -> list[EndedRun]:
        """Return the ends that have not been announced, oldest first."""
        new = [run for run in runs if self.seen.get(run.run_id) != run.ending]
        return sorted(new, key=lambda run: (run.heartbeat_at, run.run_id))

    def advance(self, runs: Iterable[EndedRun]) -> Cursor:
        """Return the cursor after all of `runs`, everything that ended since `since`."""
        ordered = sorted(runs, key=lambda run: run.heartbeat_at, reverse=True)
        if not ordered:
            return self
        since = max(self.since, ordered[0].heartbeat_at - OVERLAP)
        if len(ordered) > MAX_SEEN:
            # What is not remembered must not be found again, or it would be announced again.
            since = max(since, ordered[MAX_SEEN].heartbeat_at + timedelta(microseconds=1))
        kept = [run for run in ordered if run.heartbeat_at >= since]
        return Cursor(since, {run.run_id: run.ending for run in kept})


def utc_text(moment: datetime) -> str:
    """A moment as W&B's filters take it."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
