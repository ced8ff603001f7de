"""Status and body -> value or error: the one table that decides what an answer means."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from wb_ops.client.pacing import asked_wait_s
from wb_ops.errors import (
    AuthenticationFailed,
    CommError,
    Facts,
    InvalidRequest,
    MalformedResponse,
    NotFound,
    OutcomeUnknown,
    PermissionDenied,
    RateLimited,
    RequestTimeout,
    ServerUnavailable,
)
from wb_ops.tables.values import parse_document

MAX_MESSAGE_CHARS = 500
MAX_TOKEN_S = 100 * 365 * 24 * 3600.0

_STATUS_ERRORS: dict[int, type[CommError]] = {
    401: AuthenticationFailed,
    403: PermissionDenied,
    404: NotFound,
    410: NotFound,
    408: RequestTimeout,
    # A range of a file that has another size than before.
    416: MalformedResponse,
    425: ServerUnavailable,
    429: RateLimited,
}

# GraphQL errors come in a 200 with a text only; these are the words that W&B uses.
# The first row that fits counts: a refused filter may quote any word.
_MESSAGE_ERRORS: tuple[tuple[tuple[str, ...], type[CommError]], ...] = (
    (
        ("unauthenticated", "must be logged in", "invalid api key"),
        AuthenticationFailed,
    ),
    (
        # What the services behind W&B's API say of each other; gRPC's code may be Unknown.
        (
            "code = unavailable",
            "code = unknown",
            "code = internal",
            "code = aborted",
            "connect: connection refused",
            "connection reset by peer",
            "deadlock found",
        ),
        ServerUnavailable,
    ),
    (
        ("invalid", "unknown", "cannot query", "unsupported", "syntax error", "expected type"),
        InvalidRequest,
    ),
    (("rate limit", "too many requests"), RateLimited),
    (
        (
            "permission denied",
            "forbidden",
            "not authorized",
            "read-only",
            "access denied",
            "code = permissiondenied",
        ),
        PermissionDenied,
    ),
    (("not found", "could not find", "does not exist", "code = notfound"), NotFound),
    (
        (
            "internal error",
            "internal system error",
            "context deadline exceeded",
            "timed out",
            "timeout",
            "temporarily unavailable",
            "service unavailable",
            "rpc error",
        ),
        ServerUnavailable,
    ),
)

_REMEDIES: dict[type[CommError], str] = {
    AuthenticationFailed: "Check the API key and that it belongs to this server.",
    PermissionDenied: "Ask the project's owner for access, or use another key.",
    NotFound: "Check entity, project and run id; W&B answers alike where access is missing.",
}


@dataclass(frozen=True, slots=True)
class Response:
    """One answer, read to its end. `is_ours`: it is from W&B itself, not from a storage."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    is_ours: bool = True

    @property
    def request_id(self) -> str | None:
        """The server's id of the request, which W&B's support asks for."""
        return self.headers.get("X-Request-Id") or self.headers.get("X-Cloud-Trace-Context")


def read_graphql(response: Response, facts: Facts, *, is_write: bool) -> dict[str, Any]:
    """Return `data` of a GraphQL answer.

    Raises:
        CommError: the class and advice of the design's table.
    """
    facts = {**facts, "http_status": response.status, "request_id": response.request_id}
    if not 200 <= response.status < 300:
        raise status_error(response, facts, is_write=is_write)
    try:
        answer, _ = parse_document(response.body)
    except ValueError as exc:
        raise _unreadable("is not JSON", facts, is_write, exc) from exc
    if not isinstance(answer, dict):
        raise _unreadable("is not a JSON object", facts, is_write, None)
    if messages := _messages(answer):
        error = _message_error("; ".join(messages), response, facts, is_write=is_write)
        error.partial = answer.get("data")
        raise error
    data = answer.get("data")
    if not isinstance(data, dict):
        raise _unreadable("has neither data nor errors", facts, is_write, None)
    return data


def read_token(response: Response, facts: Facts) -> dict[str, Any]:
    """Return `access_token` and `expires_in` of the answer to an exchange of tokens.

    Raises:
        AuthenticationFailed: W&B does not take the identity token (retry: never).
        CommError: else by the design's table.
    """
    facts = {**facts, "http_status": response.status, "request_id": response.request_id}
    if 400 <= response.status < 500 and response.status not in (408, 429):
        text = _error_text(response.body)
        raise AuthenticationFailed(f"W&B does not take the identity token. {text}".strip(), **facts)
    if response.status != 200:
        raise status_error(response, facts)
    try:
        answer = json.loads(response.body)
        token, expires_in = answer["access_token"], float(answer["expires_in"])
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as exc:
        raise _unreadable("holds no access token", facts, False, None) from exc
    if not 0 <= expires_in <= MAX_TOKEN_S:
        raise _unreadable(f"holds no time as expires_in ({expires_in:g})", facts, False, None)
    return {"access_token": token, "expires_in": expires_in}


def status_error(response: Response, facts: Facts, *, is_write: bool = False) -> CommError:
    """Map an answer outside 2xx to its error."""
    status = response.status
    text = _sentence(_error_text(response.body))
    what = f"{facts.get('operation')} {facts.get('path') or ''}".strip()
    if is_write and status >= 500:
        return OutcomeUnknown(
            f"{what}: HTTP {status} to a write; it may have been carried out. {text}", **facts
        )
    default = ServerUnavailable if status >= 500 else InvalidRequest
    cls = _STATUS_ERRORS.get(status, default)
    facts = {**facts, "retry_after_s": asked_wait_s(status, response.headers)}
    return cls(f"{what}: HTTP {status}. {text} {_REMEDIES.get(cls, '')}".strip(), **facts)


def check_download(response: Response, facts: Facts) -> None:
    """Raise what an answer means that is not the file that was asked for."""
    if response.status == 200:
        return
    facts = {**facts, "http_status": response.status, "request_id": response.request_id}
    if not response.is_ours and response.status in (400, 401, 403):
        # W&B redirected to a signature that the storage refuses; the next one may be good.
        raise ServerUnavailable(f"{facts.get('path')}: the storage refuses W&B's address.", **facts)
    raise status_error(response, facts)


def listed(fields: Mapping[str, Any], name: str) -> list[Any]:
    """Return a list in an answer; null and a missing one are empty.

    Raises:
        MalformedResponse: it is no list (retry: backoff).
    """
    value = fields.get(name)
    if value is None:
        return []
    if not isinstance(value, list):
        raise MalformedResponse(f"The server gives no list for {name}.")
    return value


def missing(kind: str, facts: Facts) -> NotFound:
    """The error for a null project or run in a 200."""
    return NotFound(f"No such {kind}: {facts.get('path')}. {_REMEDIES[NotFound]}", **facts)


def _message_error(
    text: str, response: Response, facts: Facts, *, is_write: bool = False
) -> CommError:
    lowered = text.lower()
    cls = next(
        (cls for words, cls in _MESSAGE_ERRORS if any(word in lowered for word in words)),
        InvalidRequest,
    )
    if cls is RateLimited:
        facts = {**facts, "retry_after_s": asked_wait_s(429, response.headers)}
    if is_write and cls in (RateLimited, ServerUnavailable):
        # Some of the writes in the request may have been carried out: it is not sent again blind.
        cls = OutcomeUnknown
    message = f"{facts.get('operation')} {facts.get('path') or ''}: {_sentence(_cut(text))}"
    return cls(f"{message} {_REMEDIES.get(cls, '')}".strip(), **facts)


def _unreadable(what: str, facts: Facts, is_write: bool, exc: Exception | None) -> CommError:
    cls = OutcomeUnknown if is_write else MalformedResponse
    return cls(f"{facts.get('operation')}: the answer {what}.", exc, **facts)


def _messages(answer: Mapping[str, Any]) -> list[str]:
    """The texts of an answer's errors, in each of the forms that W&B uses."""
    errors = answer.get("errors") or ([answer["error"]] if answer.get("error") else [])
    if not isinstance(errors, list):
        errors = [errors]
    return [
        str(error.get("message", error)) if isinstance(error, dict) else str(error)
        for error in errors
    ]


def _error_text(body: bytes) -> str:
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        text = body.decode("utf-8", "replace")
        return "" if "<html" in text.lower() else _cut(text)
    return _cut("; ".join(_messages(answer)) if isinstance(answer, dict) else "")


def _sentence(text: str) -> str:
    return f"{text}." if text and text[-1] not in ".!?…" else text


def _cut(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= MAX_MESSAGE_CHARS else text[:MAX_MESSAGE_CHARS] + "…"
