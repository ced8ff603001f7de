"""The only retry loop: bounded in attempts and in seconds; it logs what it waits for.

A request is tried again in process while its advice is BACKOFF (full jitter) or AFTER (exactly
the server's wait), within `max_attempts` and `max_total_s`. A wait longer than `max_wait_s` is
raised at once: the orchestrator waits better than a worker does.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from tenacity import (
    RetryCallState,
    Retrying,
    stop_after_attempt,
    stop_before_delay,
    wait_random_exponential,
)

from wb_ops.client.traffic import Traffic
from wb_ops.errors import AdviceKind, CommError, RequestTimeout
from wb_ops.settings import Settings

BACKOFF_S = 0.5
MAX_BACKOFF_S = 20.0

log = logging.getLogger("wb_ops")
T = TypeVar("T")
# Whether, after so many attempts, the caller has a better answer to an error than another try.
GivesUp = Callable[[CommError, int], bool]


class Retries:
    """Tries again what fails, for one transport and from any number of threads.

    `mask` takes secrets out of a text before it is logged or raised.
    """

    def __init__(
        self,
        settings: Settings,
        traffic: Traffic,
        mask: Callable[[str], str],
        sleep: Callable[[float], None],
        clock: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._traffic = traffic
        self._mask = mask
        self._sleep = sleep
        self._clock = clock
        self._ends_at = float("inf")

    def end_after(self, seconds: float) -> None:
        """Begin nothing later than this; from then on everything raises RequestTimeout."""
        self._ends_at = self._clock() + seconds

    def run(self, attempt: Callable[[], T], gives_up: GivesUp | None = None) -> T:
        """Return what `attempt` returns, after as many attempts as help.

        `gives_up(error, attempts)` ends them early where the caller knows better.

        Raises:
            CommError: the last attempt's, with the number of attempts.
        """
        settings = self._settings
        left_s = self._ends_at - self._clock()
        if left_s <= 0:
            raise RequestTimeout("The time that all requests together may take is over.")
        retrying = Retrying(
            stop=stop_after_attempt(settings.max_attempts)
            | stop_before_delay(min(settings.max_total_s, left_s)),
            wait=_wait_s,
            retry=partial(self._is_worth_waiting, gives_up),
            before_sleep=self._note,
            sleep=self._sleep,
            reraise=True,
        )
        try:
            return retrying(attempt)
        except CommError as error:
            error.attempts = int(retrying.statistics.get("attempt_number", 1))
            error.args = (self._mask(error.message),)
            error.message = error.args[0]
            raise

    def _is_worth_waiting(self, gives_up: GivesUp | None, state: RetryCallState) -> bool:
        error = state.outcome.exception() if state.outcome else None
        if not isinstance(error, CommError):
            return False
        if gives_up is not None and gives_up(error, state.attempt_number):
            return False
        advice = error.advice
        if advice.kind is AdviceKind.AFTER:
            return (advice.seconds or 0) <= self._settings.max_wait_s
        return advice.kind is AdviceKind.BACKOFF

    def _note(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        wait_s = state.next_action.sleep if state.next_action else 0.0
        is_asked = isinstance(error, CommError) and error.advice.kind is AdviceKind.AFTER
        self._traffic.add(retries=1, waited_s=wait_s if is_asked else 0.0)
        log.warning(
            "%s; trying again in %.1f s (attempt %d of %d)",
            self._mask(str(error)),
            wait_s,
            state.attempt_number,
            self._settings.max_attempts,
        )


_backoff = wait_random_exponential(multiplier=BACKOFF_S, max=MAX_BACKOFF_S)


def _wait_s(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    if isinstance(error, CommError) and error.advice.seconds is not None:
        return error.advice.seconds
    return _backoff(state)
