"""The only loop over pages: it ends where `hasNextPage` says so, never at an empty page."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from wb_ops.errors import CommError, MalformedResponse, RequestTimeout, ServerUnavailable

MAX_PAGE_SIZE = 1000
# An answer within this time is quick: the next page may be twice as large.
QUICK_S = 2.0
# After a page was too much, so many pages of half its size come before a larger one is tried.
PAGES_BEFORE_GROWTH = 8
MAX_HALVING_S = 300.0

Connection = dict[str, Any]
Fetch = Callable[[str | None, int], Connection]
# Told the cursor before a node that cannot be read and why; gives a connection that ends after it.
Skip = Callable[[str | None, CommError], Connection]


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a connection: its nodes in order, and the size that was asked for."""

    nodes: list[dict[str, Any]]
    size: int


@dataclass(slots=True)
class PageSize:
    """How many nodes to ask for: halved where a page is too much, grown while answers are quick."""

    size: int
    largest: int
    _small_pages_left: int = 0

    def halve(self) -> None:
        """A page was too much."""
        self.size = max(1, self.size // 2)
        self._small_pages_left = PAGES_BEFORE_GROWTH

    def grow(self, seconds: float) -> None:
        """A page came in this time."""
        if self._small_pages_left:
            self._small_pages_left -= 1
        elif seconds <= QUICK_S:
            self.size = min(self.largest, self.size * 2)

    def forget(self) -> None:
        """What was too much was one node, not the size."""
        self._small_pages_left = 0


def iter_pages(
    fetch: Fetch, page_size: int, *, largest: int | None = None, skip: Skip | None = None
) -> Iterator[Page]:
    """Yield the pages of a Relay connection lazily, one request each.

    `fetch(cursor, size)` returns the connection (`edges`, `pageInfo`). A page that the server
    cannot produce is asked for again at half the size, down to one node, for at most
    `MAX_HALVING_S` seconds; then `skip` is asked for the place after that node. Pages grow from
    `page_size` to `largest` nodes (None: they don't) while answers are quick.

    Raises:
        MalformedResponse: a cursor comes twice, or there is none although more pages exist
            (retry: backoff).
    """
    cursor: str | None = None
    seen: set[str] = set()
    sizes = PageSize(page_size, max(page_size, largest or 0))
    while True:
        connection, size = _fetch_adapting(fetch, skip, cursor, sizes)
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


def is_too_much(error: CommError) -> bool:
    """Whether a smaller page may succeed: 502 and 503 speak of the server, not of this page."""
    if isinstance(error, RequestTimeout):
        return True
    is_server = isinstance(error, ServerUnavailable)
    return is_server and error.http_status in (None, 200, 500, 504)


def prefers_smaller(error: CommError, attempts: int) -> bool:
    """What took too long is not asked for in this size again; what failed, once."""
    return is_too_much(error) and attempts >= (1 if isinstance(error, RequestTimeout) else 2)


def _fetch_adapting(
    fetch: Fetch, skip: Skip | None, cursor: str | None, sizes: PageSize
) -> tuple[Connection, int]:
    deadline = time.monotonic() + MAX_HALVING_S
    while True:
        began = time.monotonic()
        size = sizes.size
        try:
            connection = fetch(cursor, size)
        except CommError as error:
            if not is_too_much(error) or time.monotonic() > deadline:
                raise
            if size > 1:
                sizes.halve()
                continue
            if skip is None:
                raise
            sizes.forget()
            return skip(cursor, error), 1
        sizes.grow(time.monotonic() - began)
        return connection, size


def _last_cursor(edges: list[dict[str, Any]]) -> str | None:
    return edges[-1].get("cursor") if edges else None
