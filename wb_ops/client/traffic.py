"""What a transport moved, counted from any thread."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field


@dataclass(slots=True)
class Traffic:
    """What a transport has sent and received so far; read it before and after to measure.

    `waited_s` is time slept because the server asked for it, `busy_s` that between a request and
    the end of its answer; both are summed over threads.
    """

    requests: int = 0
    received_bytes: int = 0
    retries: int = 0
    waited_s: float = 0.0
    busy_s: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def add(
        self,
        *,
        requests: int = 0,
        received_bytes: int = 0,
        retries: int = 0,
        waited_s: float = 0.0,
        busy_s: float = 0.0,
    ) -> None:
        """Count, from any thread."""
        with self.lock:
            self.requests += requests
            self.received_bytes += received_bytes
            self.retries += retries
            self.waited_s += waited_s
            self.busy_s += busy_s
