"""One request budget for all threads of a process, set by what W&B's own headers say."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from wb_ops.errors import RateLimited

MAX_WAIT_S = 30 * 24 * 3600.0
FULL_QUOTA = 1000.0


@dataclass(frozen=True, slots=True)
class Quota:
    """What the server has said of its limit: the part of it that is left, 0 to 1, and the seconds
    after which all of it is there again."""

    left: float
    reset_s: float


class RequestBudget:
    """When the next request may be sent. Shared by every client of one key on one server.

    Source: W&B's rate limit page: `RateLimit-Remaining` is scaled 0-1000, `RateLimit-Reset` is
    in seconds, `Retry-After` is in seconds or an HTTP date.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._not_before = 0.0
        self._quota: Quota | None = None
        self._renewed_at = 0.0
        self._place = threading.Condition()
        self._in_flight = 0

    def observe(self, status: int, headers: Mapping[str, str]) -> None:
        """Note what an answer says about the time of the next request, and of what is left."""
        wait_s, quota = asked_wait_s(status, headers), told_quota(headers)
        with self._lock:
            if wait_s is not None:
                self._not_before = max(self._not_before, self._clock() + wait_s)
            if quota is not None:
                self._quota, self._renewed_at = quota, self._clock() + quota.reset_s

    @property
    def is_open(self) -> bool:
        """Whether a request may be sent now."""
        return self._wait_s() <= 0

    def take(self, sleep: Callable[[float], None], max_wait_s: float) -> float:
        """Return when a request may be sent; other threads' findings count too.

        Returns:
            The seconds slept.

        Raises:
            RateLimited: the wait is longer than `max_wait_s` (retry: after that wait).
        """
        waited_s = 0.0
        while (wait_s := self._wait_s()) > 0:
            if wait_s > max_wait_s:
                raise RateLimited(
                    f"W&B's request limit is spent for another {wait_s:.0f} s.",
                    retry_after_s=wait_s,
                )
            waited_s += wait_s
            sleep(wait_s)
        return waited_s

    @property
    def wait_s(self) -> float:
        """Seconds until a request may be sent; 0 where one may be sent now."""
        return max(0.0, self._wait_s())

    @property
    def quota(self) -> Quota | None:
        """What the last answer that spoke of the limit said of it; None where that is over."""
        with self._lock:
            reset_s = self._renewed_at - self._clock()
            return Quota(self._quota.left, reset_s) if self._quota and reset_s > 0 else None

    @contextmanager
    def slot(self, max_in_flight: int) -> Iterator[None]:
        """Hold one of the process's places for a request on its way; waits for a free one."""
        with self._place:
            self._place.wait_for(lambda: self._in_flight < max_in_flight)
            self._in_flight += 1
        try:
            yield
        finally:
            with self._place:
                self._in_flight -= 1
                self._place.notify_all()

    def _wait_s(self) -> float:
        with self._lock:
            return self._not_before - self._clock()


_budgets: dict[tuple[str, bytes, Callable[[], float]], RequestBudget] = {}
_budgets_lock = threading.Lock()


def shared_budget(
    base_url: str, identity: str, clock: Callable[[], float] = time.monotonic
) -> RequestBudget:
    """Return this process's budget for one key on one server, by one clock."""
    name = (base_url, hashlib.sha256(identity.encode()).digest(), clock)
    with _budgets_lock:
        return _budgets.setdefault(name, RequestBudget(clock))


def forget_budgets() -> None:
    """Let new clients begin anew; those that are there keep what they know.

    A forked child has none of its parent's threads, whose requests would count for ever. A test's
    server may have the port of an earlier one, whose limit was spent.
    """
    global _budgets, _budgets_lock
    _budgets, _budgets_lock = {}, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=forget_budgets)


def asked_wait_s(status: int, headers: Mapping[str, str]) -> float | None:
    """Seconds that an answer asks to wait before the next request, or None.

    `Retry-After` counts on 429 and 503; `RateLimit-Reset` where nothing remains.
    """
    if status in (429, 503):
        retry_after = _sane(_seconds(headers.get("Retry-After")))
        if retry_after is not None:
            return retry_after
    remaining = _number(headers.get("RateLimit-Remaining"))
    if status == 429 or (remaining is not None and remaining <= 0):
        return _sane(_number(headers.get("RateLimit-Reset")))
    return None


def told_quota(headers: Mapping[str, str]) -> Quota | None:
    """What an answer says of the limit, or None; its counts are scaled, to 1,000 at most."""
    remaining = _number(headers.get("RateLimit-Remaining"))
    reset_s = _sane(_number(headers.get("RateLimit-Reset")))
    if remaining is None or reset_s is None:
        return None
    limit = _number(headers.get("RateLimit-Limit")) or FULL_QUOTA
    return Quota(min(1.0, remaining / limit), reset_s)


def _sane(wait_s: float | None) -> float | None:
    """Read a time of day that some servers send instead of seconds; ignore what is neither.

    A wait is kept for the whole process, so that a nonsensical one would end all its requests.
    """
    if wait_s is not None and wait_s > MAX_WAIT_S:
        wait_s -= time.time()
    return wait_s if wait_s is not None and 0 <= wait_s <= MAX_WAIT_S else None


def _seconds(value: str | None) -> float | None:
    if value is None:
        return None
    number = _number(value)
    if number is not None:
        return number
    try:
        when = parsedate_to_datetime(value)
    except (ValueError, OverflowError, TypeError):
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return max(0.0, (when - datetime.now(UTC)).total_seconds())


def _number(value: str | None) -> float | None:
    try:
        number = float(value) if value is not None else -1.0
    except ValueError:
        return None
    return number if 0 <= number < float("inf") else None
