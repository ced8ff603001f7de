"""The errors of this package in Dagster's words.

AFTER(s)         RetryRequested(seconds_to_wait=s) from Failure: exactly the wait asked for, and
                 the pool's slot is free meanwhile
BACKOFF, VERIFY  Failure: the asset's RetryPolicy picks the delay
NEVER            Failure(allow_retries=False), and the run is not retried either

Every Failure has the facts of the error as metadata, the last one of many attempts too.
"""

from __future__ import annotations

import inspect
import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import wraps
from types import TracebackType
from typing import ParamSpec, TypeAlias, TypeVar, cast

import dagster as dg

from wb_ops.errors import WbOpsError, find_error

P = ParamSpec("P")
R = TypeVar("R")
Context: TypeAlias = dg.AssetExecutionContext | dg.OpExecutionContext

MAX_WAIT_S = 900.0
DEFAULT_RETRY_POLICY = dg.RetryPolicy(
    max_retries=4, delay=30, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.FULL
)
# Dagster's run retries ask this tag whether a failed step is a reason for them.
RUN_RETRY_TAG = "dagster/retry_on_asset_or_op_failure"


def wandb_retries(
    context: Context | None = None,
    *,
    max_retries: int | None = None,
    max_wait_s: float = MAX_WAIT_S,
) -> WandbRetries:
    """Translate errors of this package inside the block, or inside the decorated function.

    Errors that a loader has wrapped are found too. Exceptions that are not of this package, and
    a Failure or RetryRequested that the body raises itself, are left as they are.

    Args:
        context: the step's context; by default that of the step that runs now.
        max_retries: bound for waits that the server asks for; by default that of the asset's
            RetryPolicy. Dagster counts both kinds of retry together.
        max_wait_s: a longer wait fails the step, and the next run of its schedule carries on:
            a run that sleeps for an hour costs more than it saves.

    Example:
        >>> @dg.asset(retry_policy=DEFAULT_RETRY_POLICY)
        ... @wandb_retries()
        ... def learning_rates(wandb: WandbResource) -> list[float]:
        ...     return [run.config["lr"] for run in wandb.get_api().runs("my-team/my-project")]
    """
    return WandbRetries(context, max_retries, max_wait_s)


@dataclass(frozen=True, slots=True)
class WandbRetries(AbstractContextManager[None]):
    """What `wandb_retries` returns: a context manager and a decorator; holds no state."""

    context: Context | None
    max_retries: int | None
    max_wait_s: float

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if not isinstance(exc, Exception) or isinstance(exc, dg.Failure | dg.RetryRequested):
            return
        if (error := find_error(exc)) is not None:
            self._raise_translated(error, exc)

    def __call__(self, body: Callable[P, R]) -> Callable[P, R]:
        """Wrap a function or a generator function."""
        if inspect.iscoroutinefunction(body) or inspect.isasyncgenfunction(body):
            raise TypeError(
                f"{body.__name__} is asynchronous: use `with wandb_retries():` inside it."
            )

        @wraps(body)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            with self:
                return body(*args, **kwargs)

        @wraps(body)
        def generate(*args: P.args, **kwargs: P.kwargs) -> Iterator[object]:
            with self:
                yield from cast(Iterator[object], body(*args, **kwargs))

        return cast(Callable[P, R], generate) if inspect.isgeneratorfunction(body) else call

    def _raise_translated(self, error: WbOpsError, exc: Exception) -> None:
        context = self.context or _current_context()
        failure = failure_of(error, max_wait_s=self.max_wait_s)
        wait_s = error.advice.seconds
        if failure.allow_retries and wait_s is not None:
            failure.__cause__ = exc
            # Many steps are told the same wait; they must not all come back at once.
            wait_s += random.uniform(0.01, 0.1) * wait_s  # noqa: S311 - not for secrets
            _log(context, f"{error.message} This step waits {wait_s:.1f} s and is started again.")
            raise dg.RetryRequested(self._max_retries(context), wait_s) from failure
        if not failure.allow_retries:
            stop_run_retries(context)
        raise failure from exc

    def _max_retries(self, context: Context | None) -> int:
        if self.max_retries is not None:
            return self.max_retries
        return (_retry_policy(context) or DEFAULT_RETRY_POLICY).max_retries


def failure_of(error: WbOpsError, *, max_wait_s: float = MAX_WAIT_S) -> dg.Failure:
    """Return the Failure for an error, with its facts as metadata.

    `allow_retries` is false where the advice is NEVER or the wait is longer than `max_wait_s`.
    """
    advice = error.advice
    metadata = facts_of(error)
    description = f"{type(error).__name__}: {error.message}"
    too_long = advice.seconds is not None and advice.seconds > max_wait_s
    if advice.seconds is not None:
        metadata["wandb/retry_after_s"] = advice.seconds
    if too_long:
        description += (
            f" The wait of {advice.seconds:.0f} s is longer than this step may wait "
            f"({max_wait_s:.0f} s): run it again later, or let its schedule do so."
        )
    return dg.Failure(description, metadata, allow_retries=advice.retryable and not too_long)


def facts_of(error: WbOpsError) -> dict[str, str | int | float]:
    """Return what an error knows as metadata: status, request id, path, attempts, and so on."""
    return {
        "wandb/error": type(error).__name__,
        "wandb/advice": str(error.advice.kind),
        **{f"wandb/{name}": value for name, value in error.facts.items()},
    }


def _current_context() -> Context | None:
    try:
        return dg.AssetExecutionContext.get()
    except dg.DagsterInvariantViolationError:
        return None


def _retry_policy(context: Context | None) -> dg.RetryPolicy | None:
    try:
        return None if context is None else context.op_def.retry_policy
    except dg.DagsterError:  # a direct call of an asset's function, in a unit test, has no op
        return None


def stop_run_retries(context: Context | None) -> None:
    """Tag the run, because `allow_retries=False` stops the step's retries only."""
    if context is None:
        return
    try:
        context.instance.add_run_tags(context.run.run_id, {RUN_RETRY_TAG: "false"})
    except Exception as exc:  # a tag that cannot be written must not hide the failure
        _log(context, f"The run could not be tagged {RUN_RETRY_TAG}: {type(exc).__name__}")


def _log(context: Context | None, message: str) -> None:
    if context is not None:
        context.log.warning(message)
