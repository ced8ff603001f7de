"""How far a sensor has come in the runs that ended; a value that Dagster keeps as text."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from wb_ops.tables.times import parse_server_time

# A crash is noticed minutes after the last sign of life, which stays the time of the run's end.
OVERLAP = timedelta(minutes=30)
MAX_SEEN = 500


@dataclass(frozen=True, slots=True)
class Cursor:
    """Ended runs at or after `at` that are not in `seen` are new.

    Attributes:
        at: a time; nothing that ended before it is asked for again.
        seen: run id -> when it ended, for the runs that ended at or after `at`. A run that was
            resumed and has ended again ends at another time, so it is new once more.
    """

    at: datetime
    seen: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def loads(cls, text: str | None, start: datetime) -> Cursor:
        """Read the stored form; `start` is where there is none yet.

        Raises:
            ValueError: the text is no cursor.
        """
        if not text:
            return cls(start)
        try:
            values = json.loads(text)
            return cls(
                parse_server_time(values["at"]), {str(k): str(v) for k, v in values["seen"].items()}
            )
        except (KeyError, TypeError, AttributeError) as exc:
            raise ValueError(f"no cursor: {exc}") from exc

    def dumps(self) -> str:
        """The stored form."""
        return json.dumps({"at": self.at.isoformat(), "seen": dict(self.seen)})

    def is_new(self, run_id: str, ended: str) -> bool:
        """Whether this end of the run was not reported yet."""
        return self.seen.get(run_id) != ended

    def advance(self, reported: Iterable[tuple[str, str]]) -> Cursor:
        """Return the cursor after these (run id, ended) were reported, oldest first."""
        seen = {**self.seen, **dict(reported)}
        if not seen:
            return self
        newest = max(parse_server_time(ended) for ended in seen.values())
        at = max(self.at, newest - OVERLAP)
        kept = sorted(
            ((run_id, ended) for run_id, ended in seen.items() if parse_server_time(ended) >= at),
            key=lambda one: parse_server_time(one[1]),
        )
        if len(kept) > MAX_SEEN:
            at = parse_server_time(kept[-MAX_SEEN][1])
            # All that ended in that moment: what is forgotten would be new again, for ever.
            kept = [one for one in kept if parse_server_time(one[1]) >= at]
        return Cursor(at, dict(kept))
