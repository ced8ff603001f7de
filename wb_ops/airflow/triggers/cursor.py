"""How far the watcher of a project has come, as a value that survives a restart."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

# A run is marked as crashed minutes after its last heartbeat, and servers see changes with a lag.
OVERLAP = timedelta(minutes=30)
# 64 bits: among ten thousand ends the odds that two are taken for one are 1 to 10^11.
MARK_LENGTH = 16
# Airflow's state store takes 64 KB a value.
MARKS_PER_PAGE = 3500


@dataclass(frozen=True, slots=True)
class EndedRun:
    """A run that is in a terminal state, and when it last wrote (server time)."""

    run_id: str
    name: str
    state: str
    heartbeat_at: datetime

    @property
    def mark(self) -> str:
        """A short text for this end of the run; another one, after it was resumed, has another."""
        text = f"{self.run_id} {self.state} {self.heartbeat_at.isoformat()}"
        return hashlib.sha256(text.encode()).hexdigest()[:MARK_LENGTH]


@dataclass(frozen=True, slots=True)
class Cursor:
    """What has been announced already.

    Attributes:
        since: ends before this moment (server time) are not looked at again.
        seen: marks of the ends after `since`. All of them: what is forgotten would be announced
            again, and what is not looked at again would be lost.
    """

    since: datetime
    seen: frozenset[str] = frozenset()

    @classmethod
    def start(cls, now: datetime) -> Cursor:
        """Where a watcher begins that never ran: with the runs of the last half hour."""
        return cls(now - OVERLAP)

    @classmethod
    def load(cls, pages: Sequence[Mapping[str, Any]]) -> Cursor:
        """Read what `dump` gave."""
        texts = [str(page["seen"]) for page in pages]
        marks = (text[at : at + MARK_LENGTH] for text in texts for at in _steps(text))
        return cls(datetime.fromisoformat(pages[0]["since"]), frozenset(marks))

    def dump(self) -> list[dict[str, Any]]:
        """Return JSON values, each of which a state store takes; one at least."""
        marks = sorted(self.seen)
        starts = range(0, max(1, len(marks)), MARKS_PER_PAGE)
        since = self.since.isoformat()
        return [{"since": since, "seen": "".join(marks[at : at + MARKS_PER_PAGE])} for at in starts]

    def news(self, runs: Iterable[EndedRun]) -> list[EndedRun]:
        """Return the ends that have not been announced, oldest first."""
        new = [run for run in runs if run.mark not in self.seen]
        return sorted(new, key=lambda run: (run.heartbeat_at, run.run_id))

    def advance(self, runs: Collection[EndedRun]) -> Cursor:
        """Return the cursor after all of `runs`, everything that ended since `since`."""
        if not runs:
            return self
        since = max(self.since, max(run.heartbeat_at for run in runs) - OVERLAP)
        return Cursor(since, frozenset(run.mark for run in runs if run.heartbeat_at >= since))


def _steps(text: str) -> range:
    return range(0, len(text), MARK_LENGTH)
