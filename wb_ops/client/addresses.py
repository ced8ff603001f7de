"""Addresses that a server gives: of its files, and of redirects; some of them are none."""

from __future__ import annotations

from urllib.parse import urljoin, urlsplit

from wb_ops.client.responses import Response
from wb_ops.errors import Facts, InvalidRequest, MalformedResponse


def absolute(base_url: str, url: str, facts: Facts) -> str:
    """Return the whole address of a file.

    Raises:
        MalformedResponse: it is no address (retry: backoff).
    """
    _check_address(url, facts)
    return base_url + url if url.startswith("/") else url


def redirected(base_url: str, method: str, url: str, response: Response, facts: Facts) -> str:
    """Return where an answer redirects to.

    Raises:
        InvalidRequest: only a GET is redirected, and to HTTP (retry: never).
        MalformedResponse: it is no address (retry: backoff).
    """
    location = response.headers.get("Location", "")
    _check_address(location, facts)
    target = urljoin(url, location)
    parts = urlsplit(target)
    if method != "GET" or parts.scheme not in ("http", "https"):
        raise InvalidRequest(
            f"{base_url} redirects to {parts.scheme}://{parts.netloc}: set base_url to W&B's API "
            "itself.",
            **facts,
        )
    return target


def _check_address(url: str, facts: Facts) -> None:
    try:
        _ = urlsplit(url).port
    except ValueError:
        raise MalformedResponse("The server gives an address that is none.", **facts) from None
