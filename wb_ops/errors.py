"""Every error of this package, each with its retry advice.

WbOpsError
├── CommError                  W&B, or the way to it
│   ├── RateLimited            AFTER(s)   429, or the request budget is spent
│   ├── ServerUnavailable      BACKOFF    5xx
│   ├── ConnectionFailed       BACKOFF    refused, reset, no route
│   ├── RequestTimeout         BACKOFF    no answer in time, 408
│   ├── MalformedResponse      BACKOFF    a body that is cut or is not what it should be
│   ├── OutcomeUnknown         VERIFY     a write whose answer was lost
│   ├── AuthenticationFailed   NEVER      no key, or one that the server does not know
│   ├── PermissionDenied       NEVER      403
│   ├── NotFound               NEVER      no such project or run, or it may not be read
│   ├── InvalidRequest         NEVER      400, 404, 422, a refused query, bad input
│   └── IncompleteHistory      BACKOFF    the rows read do not add up to what the server counts
├── WarehouseError
│   ├── WarehouseUnavailable   BACKOFF    cannot be reached now
│   ├── WarehouseBusy          AFTER(s)   another writer holds it
│   └── WarehouseRefused       NEVER      read-only, full, another project's, a newer schema
└── ExportIncomplete           the mildest advice that helps one of its runs

In:  nothing. Out: classes and advice. May import: the standard library.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, ClassVar, TypedDict, Unpack


class AdviceKind(StrEnum):
    """What a caller, or an orchestrator on its behalf, should do about an error."""

    NEVER = "never"
    BACKOFF = "backoff"
    AFTER = "after"
    VERIFY = "verify"


@dataclass(frozen=True, slots=True)
class Advice:
    """Whether trying again can help, and when.

    `seconds` is set for AFTER only: the time that must pass before the next try.
    """

    kind: AdviceKind
    seconds: float | None = None

    @property
    def retryable(self) -> bool:
        """Whether a later try of the same task can succeed without a person's help."""
        return self.kind is not AdviceKind.NEVER


class Facts(TypedDict, total=False):
    """What an error knows beside its message."""

    operation: str | None
    path: str | None
    http_status: int | None
    request_id: str | None
    attempts: int
    retry_after_s: float | None


class WbOpsError(Exception):
    """The root. `message` says what failed, on what, and what to do next.

    Attributes:
        exc: the lower library's exception, if there was one (not carried through pickle).
        report: what was done until then (not carried through pickle): a BackfillReport where a
            backfill has written something, an ExportReport of ExportIncomplete.
        operation: the GraphQL operation or the verb, such as "Runs" or "download".
        path: entity/project, entity/project/run, or a warehouse's name. Never a signed URL.
        http_status: the status of the last answer, if one came.
        request_id: the server's own id of the request, for its support.
        attempts: how often it was tried in this process.
        retry_after_s: seconds that the server asked for.
    """

    kind: ClassVar[AdviceKind] = AdviceKind.NEVER
    report: Any = None

    def __init__(
        self, message: str, exc: BaseException | None = None, **facts: Unpack[Facts]
    ) -> None:
        super().__init__(message)
        self.message = message
        self.exc = exc
        self.operation = facts.get("operation")
        self.path = facts.get("path")
        self.http_status = facts.get("http_status")
        self.request_id = facts.get("request_id")
        self.attempts = facts.get("attempts", 1)
        self.retry_after_s = facts.get("retry_after_s")

    @property
    def advice(self) -> Advice:
        """What to do about it."""
        return Advice(self.kind)

    @property
    def facts(self) -> dict[str, str | int | float]:
        """The facts that are known, as plain values, for logs and an orchestrator's metadata."""
        names = ("operation", "path", "http_status", "request_id", "attempts", "retry_after_s")
        return {name: value for name in names if (value := getattr(self, name)) is not None}

    def __reduce__(self) -> tuple[Any, ...]:
        left_out = ("exc", "report", "partial")
        state = {name: value for name, value in self.__dict__.items() if name not in left_out}
        return _rebuild, (type(self), self.message, state)


def _rebuild(cls: type[WbOpsError], message: str, state: dict[str, Any]) -> WbOpsError:
    error = cls.__new__(cls)
    Exception.__init__(error, message)
    error.exc = None
    error.__dict__.update(state)
    return error


class CommError(WbOpsError):
    """Talking to W&B failed; the subclass says how.

    Attributes:
        partial: what a GraphQL answer with errors held as `data` (not carried through pickle).
    """

    partial: Any = None


class _AfterError(WbOpsError):
    """AFTER where the wait is known, else BACKOFF."""

    kind = AdviceKind.AFTER

    @property
    def advice(self) -> Advice:
        """AFTER the known wait; plain BACKOFF where none was given."""
        if self.retry_after_s is None:
            return Advice(AdviceKind.BACKOFF)
        return Advice(AdviceKind.AFTER, self.retry_after_s)


class RateLimited(_AfterError, CommError):
    """W&B's request limit is reached."""


class ServerUnavailable(CommError):
    """W&B answered 5xx, or a GraphQL error that says the same."""

    kind = AdviceKind.BACKOFF


class ConnectionFailed(CommError, ConnectionError):
    """No connection, or one that broke before an answer came."""

    kind = AdviceKind.BACKOFF


class RequestTimeout(CommError, TimeoutError):
    """No answer within `timeout_s`, or 408."""

    kind = AdviceKind.BACKOFF


class MalformedResponse(CommError):
    """The answer is cut, or is not what this request is answered with."""

    kind = AdviceKind.BACKOFF


class OutcomeUnknown(CommError):
    """A write was sent and its answer was lost: read, compare, then decide."""

    kind = AdviceKind.VERIFY


class AuthenticationFailed(CommError):
    """There is no API key, or the server does not know it."""


class PermissionDenied(CommError):
    """The key is known and may not do this."""


class NotFound(CommError, LookupError):
    """No such project or run, or this key cannot see it (W&B answers both alike)."""


class InvalidRequest(CommError, ValueError):
    """The request, or an argument of ours, is wrong; repeating it cannot help."""


class IncompleteHistory(CommError):
    """The rows read of a run do not add up to what the server counts."""

    kind = AdviceKind.BACKOFF


class WarehouseError(WbOpsError):
    """The warehouse failed; the subclass says how."""


class WarehouseUnavailable(WarehouseError):
    """The warehouse cannot be reached now."""

    kind = AdviceKind.BACKOFF


class WarehouseBusy(_AfterError, WarehouseError):
    """Another writer holds the warehouse longer than `lock_timeout_s`."""


class WarehouseRefused(WarehouseError):
    """The warehouse will not take this: read-only, full, another project's, a newer schema."""


class ExportIncomplete(WbOpsError):
    """Some runs failed or do not add up; everything else is committed.

    Its advice is the mildest that helps: AFTER the longest wait asked for, else BACKOFF if any
    run can succeed later, else NEVER.
    """

    def __init__(self, message: str, causes: Iterable[Advice] = (), **facts: Unpack[Facts]) -> None:
        super().__init__(message, **facts)
        self._advice = mildest(causes)

    @property
    def advice(self) -> Advice:
        """The mildest advice that helps one of the runs."""
        return self._advice


def mildest(causes: Iterable[Advice]) -> Advice:
    """Join several advices into the one after which a retry is worth its cost."""
    retryable = [advice for advice in causes if advice.retryable]
    waits = [advice.seconds for advice in retryable if advice.seconds is not None]
    if waits:
        return Advice(AdviceKind.AFTER, max(waits))
    return Advice(AdviceKind.BACKOFF if retryable else AdviceKind.NEVER)


def find_error(exc: BaseException | None) -> WbOpsError | None:
    """Return the first error of ours in `exc` and its chain of causes, or None.

    Loaders and orchestrators wrap what a task raises, so the error that carries the advice is
    often a cause of a cause. An error that was merely being handled is not followed: what was
    raised then is another failure.
    """
    seen: set[int] = set()
    while exc is not None and id(exc) not in seen:
        if isinstance(exc, WbOpsError):
            return exc
        seen.add(id(exc))
        exc = exc.__cause__
    return None
