"""Waits that W&B or the warehouse asks for, spent in the triggerer instead of in a worker."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from airflow.sdk import conf
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from wb_ops.airflow.retry_policy import HAS_RETRY_POLICIES
from wb_ops.airflow.triggers.events import checked_event
from wb_ops.airflow.triggers.throttle import THROTTLED, ThrottleTrigger
from wb_ops.airflow.waits import is_throttle, throttle_wait_s
from wb_ops.errors import WbOpsError, find_error

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator

T = TypeVar("T")

MAX_THROTTLES = 10
# The first wait for a limit that names no time.
UNNAMED_WAIT_S = 15.0
# Whoever raised them has decided already, whatever they were raised from.
DECIDED = (AirflowFailException, AirflowSkipException)


def default_deferrable() -> bool:
    """Airflow's own default: [operators] default_deferrable."""
    return bool(conf.getboolean("operators", "default_deferrable", fallback=False))


def default_max_throttles() -> int:
    """[wandb] max_throttles: how many waits one try may spend in the triggerer."""
    return int(conf.getint("wandb", "max_throttles", fallback=MAX_THROTTLES))


def throttles_of(event: Mapping[str, Any] | None) -> int:
    """Return how often the try that resumes with this event has waited.

    Raises:
        RuntimeError: it is no event of a ThrottleTrigger.
    """
    return int(checked_event(event, THROTTLED)["throttles"])


def _undecided(exc: Exception) -> WbOpsError | None:
    return None if isinstance(exc, DECIDED) else find_error(exc)


@contextmanager
def fails_at_once() -> Iterator[None]:
    """Before Airflow 3.3, where no retry policy is asked, fail a task at once that cannot heal."""
    try:
        yield
    except Exception as exc:
        error = _undecided(exc)
        if error is not None and not error.advice.retryable and not HAS_RETRY_POLICIES:
            # Nobody is asked there, and each retry would be spent on what cannot heal.
            raise AirflowFailException(str(error)) from exc
        raise


def defer_throttled(
    operator: BaseOperator, work: Callable[[], T], throttles: int, max_throttles: int
) -> T:
    """Do the work; where it is throttled, wait in the triggerer and resume.

    A limit that names no time is waited for too, twice as long each time. The resumed task begins
    its work anew, which finds what is committed already. A wait costs neither a worker nor a
    retry; after `max_throttles` of them in one try the error is raised, and the task's retries
    decide.
    """
    try:
        with fails_at_once():
            return work()
    except Exception as exc:
        error = _undecided(exc)
        if error is None or not is_throttle(error) or throttles >= max_throttles:
            raise
        wait_s = throttle_wait_s(error, throttles, UNNAMED_WAIT_S)
        operator.log.info("%s; waiting %.1f s in the triggerer", exc, wait_s)
        operator.defer(
            trigger=ThrottleTrigger(time.time() + wait_s, throttles + 1),
            method_name="execute_complete",
        )
