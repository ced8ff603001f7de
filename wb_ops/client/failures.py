"""What requests and urllib3 raise -> our errors; and what must not travel with them."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Iterator
from contextlib import contextmanager

import requests
import urllib3

from wb_ops.errors import (
    CommError,
    ConnectionFailed,
    Facts,
    InvalidRequest,
    MalformedResponse,
    OutcomeUnknown,
    RequestTimeout,
)


class BodyRefused(requests.exceptions.ContentDecodingError):
    """An answer that is not read to its end; its text says why and quotes nothing of it."""


class BodyTooLate(requests.exceptions.ReadTimeout):
    """An answer that takes too long; its text says how long."""


# What they raise of their own; urllib3 has one that is not an HTTPError of its own.
FOREIGN = (
    requests.RequestException,
    urllib3.exceptions.HTTPError,
    urllib3.exceptions.ProxySchemeUnsupported,
)


@contextmanager
def mapped(facts: Facts, *, is_write: bool) -> Iterator[None]:
    """Turn what requests and urllib3 raise into our tree; nothing of theirs gets out."""
    try:
        yield
    except FOREIGN as exc:
        cls = _error_class(exc)
        was_sent = isinstance(exc, BodyRefused) or cls is not InvalidRequest
        if is_write and was_sent and not _never_sent(exc):
            cls = OutcomeUnknown
        description = _describe(exc)
        _scrub(exc, description)
        raise cls(f"{facts.get('operation')}: {description}", exc, **facts) from exc
    except OSError as exc:
        if exc.errno is not None:
            raise
        # requests' own check of the file of certificates; what a system call says has a number.
        raise InvalidRequest(
            f"{facts.get('operation')}: {exc}. Check REQUESTS_CA_BUNDLE and CURL_CA_BUNDLE.",
            exc,
            **facts,
        ) from exc


def _error_class(exc: Exception) -> type[CommError]:
    rx = requests.exceptions
    if isinstance(exc, BodyRefused):
        return InvalidRequest
    if isinstance(exc, rx.SSLError) and not _is_refused_certificate(exc):
        return ConnectionFailed
    if isinstance(exc, rx.SSLError | rx.InvalidURL | rx.InvalidHeader | rx.TooManyRedirects):
        return InvalidRequest
    if isinstance(exc, rx.MissingSchema | rx.InvalidSchema | rx.InvalidProxyURL):
        return InvalidRequest
    if isinstance(exc, urllib3.exceptions.ProxySchemeUnsupported):
        return InvalidRequest
    if isinstance(exc, rx.Timeout | urllib3.exceptions.TimeoutError):
        return RequestTimeout
    if isinstance(exc, urllib3.exceptions.SSLError):
        return ConnectionFailed
    if isinstance(exc, rx.ChunkedEncodingError | rx.ContentDecodingError):
        return MalformedResponse
    if isinstance(exc, urllib3.exceptions.HTTPError):
        return MalformedResponse
    return ConnectionFailed


def _is_refused_certificate(exc: Exception) -> bool:
    """Whether TLS failed for good: the certificate is not trusted. Anything else may pass."""
    inner = exc.args[0] if exc.args else None
    reason = getattr(inner, "reason", inner)
    causes = (reason, *(getattr(reason, "args", None) or ()))
    return any(isinstance(cause, ssl.SSLCertVerificationError) for cause in causes)


def _never_sent(exc: Exception) -> bool:
    reason = getattr(exc.args[0], "reason", None) if exc.args else None
    return isinstance(exc, requests.ConnectTimeout) or isinstance(
        reason, urllib3.exceptions.NewConnectionError
    )


def _scrub(exc: Exception, description: str) -> None:
    """Take out what must not travel with an exception into logs and event stores.

    The prepared request carries the Authorization header, and the texts of the exception and of
    its causes quote the whole URL, whose signature is a secret too.
    """
    if isinstance(exc, requests.RequestException):
        exc.request = None
        exc.response = None
    exc.args = (description,)
    exc.__cause__ = exc.__context__ = None


def _describe(exc: Exception) -> str:
    if isinstance(exc, BodyRefused | BodyTooLate):
        return str(exc)
    inner = exc.args[0] if exc.args else None
    reason = getattr(inner, "reason", inner)
    kind = type(exc).__name__
    return f"{kind} ({type(reason).__name__})" if isinstance(reason, Exception) else kind


class _HideQuery(logging.Filter):
    """Cuts the query off URLs: urllib3's debug lines would show the signatures in them."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(
                arg.split("?", 1)[0] + "?..." if isinstance(arg, str) and "?" in arg else arg
                for arg in record.args
            )
        return True


_hide_query = _HideQuery()


def hide_queries_in_logs() -> None:
    """Keep signatures out of urllib3's log; adding the same filter again does nothing."""
    logging.getLogger("urllib3.connectionpool").addFilter(_hide_query)
