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
    if _remedy(exc) is not None:
        return InvalidRequest
    if isinstance(exc, rx.InvalidURL | rx.InvalidHeader | rx.TooManyRedirects):
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


def _remedy(exc: Exception) -> str | None:
    """What has to be mended, where any other try would end alike."""
    inner = exc.args[0] if exc.args else None
    reason = getattr(inner, "reason", inner)
    for cause in (reason, *(getattr(reason, "args", None) or ())):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return (
                "the server's certificate is not trusted; if an authority of your own has signed "
                "it, set REQUESTS_CA_BUNDLE to the file of that authority's certificates"
            )
        if isinstance(exc, requests.exceptions.SSLError) and _is_about_our_file(cause):
            return (
                "the file that REQUESTS_CA_BUNDLE or CURL_CA_BUNDLE names cannot be read, or "
                "holds no certificate"
            )
        if isinstance(exc, requests.exceptions.ProxyError) and "failed: 407" in str(cause):
            return (
                "the proxy asks for a password: give it in the address, as in "
                "HTTPS_PROXY=http://user:password@host:port"
            )
    return None


def _is_about_our_file(cause: object) -> bool:
    """Whether TLS failed before the first byte, over the certificates on this machine."""
    is_content = isinstance(cause, ssl.SSLError) and getattr(cause, "library", "") == "X509"
    return is_content or isinstance(cause, PermissionError)


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
    what = f"{kind} ({type(reason).__name__})" if isinstance(reason, Exception) else kind
    remedy = _remedy(exc)
    return f"{what}: {remedy}." if remedy else what


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
