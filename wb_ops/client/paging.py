"""The only loop over pages: it ends where `hasNextPage` says so, never at an empty page."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from wb_ops.errors import CommError, MalformedResponse, RequestTimeout, ServerUnavailable

MAX_PAGE_SIZE = 1000
MAX_HALVING_S = 300.0


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a connection: its nodes in order, and the size that was asked for."""

    nodes: list[dict[str, Any]]
    size: int


def iter_pages(
    fetch: Callable[[str | None, int], dict[str, Any]], page_size: int
) -> Iterator[Page]:
    """Yield the pages of a Relay connection lazily, one request each.

    `fetch(cursor, size)` returns the connection (`edges`, `pageInfo`). A page that the server
    cannot produce is asked for again at half the size, down to one node, for at most
    `MAX_HALVING_S` seconds; the pages after it keep that size.

    Raises:
        MalformedResponse: a cursor comes twice, or there is none although more pages exist
            (retry: backoff).
    """
    cursor: str | None = None
    seen: set[str] = set()
    size = page_size
    while True:
        connection, size = _fetch_adapting(fetch, cursor, size)
        edges = connection.get("edges") or []
        yield Page([edge["node"] for edge in edges if edge and edge.get("node")], size)
        info = connection.get("pageInfo") or {}
        if not info.get("hasNextPage"):
            return
        cursor = info.get("endCursor") or _last_cursor(edges)
        if cursor is None or cursor in seen:
            raise MalformedResponse(
                "The server announces another page but gives "
                + ("no cursor for it." if cursor is None else "a cursor that it gave before.")
            )
        seen.add(cursor)


def _fetch_adapting(
    fetch: Callable[[str | None, int], dict[str, Any]], cursor: str | None, size: int
) -> tuple[dict[str, Any], int]:
    deadline = time.monotonic() + MAX_HALVING_S
    while True:
        try:
            return fetch(cursor, size), size
        except (RequestTimeout, ServerUnavailable) as error:
            if size == 1 or not _is_too_large(error) or time.monotonic() > deadline:
                raise
            size = max(1, size // 2)


def _is_too_large(error: CommError) -> bool:
    # 502 and 503 speak of the server, not of this page.
    return error.http_status in (None, 200, 408, 500, 504)


def _last_cursor(edges: list[dict[str, Any]]) -> str | None:
    return edges[-1].get("cursor") if edges else None
