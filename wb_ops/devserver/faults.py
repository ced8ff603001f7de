"""Faults on demand: which request, and how it goes wrong."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from typing import Literal, TypeAlias

Ending: TypeAlias = Literal["complete", "cut", "reset", "lost"]
QUIRKS = frozenset({"empty_page", "same_cursor", "null_user", "expired_urls"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Matcher:
    """Which requests a fault concerns; what is None matches everything.

    Args:
        operation: The GraphQL operation's name.
        path: A glob over the URL path, such as ``/exports/*``.
        method: The HTTP method.
        origin: ``api`` or ``storage``.
        document: A glob over the GraphQL text, such as ``*run1: upsertBucket*`` for a mutation of
            more than one run.
        nth: Only the n-th of the requests that match all else, counted from 1.
    """

    operation: str | None = None
    path: str | None = None
    method: str | None = None
    origin: str | None = None
    document: str | None = None
    nth: int | None = None

    def matches(self, request: Mapping[str, str | None]) -> bool:
        """Whether a request matches, apart from ``nth``."""
        return all(
            wanted is None
            or (request[name] is not None and fnmatchcase(request[name] or "", wanted))
            for name, wanted in (
                ("operation", self.operation),
                ("path", self.path),
                ("method", self.method),
                ("origin", self.origin),
                ("document", self.document),
            )
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Responder:
    """How a request goes wrong; by default the true answer is sent.

    Args:
        status: Answer with this status instead of asking the application.
        headers: Added to the answer.
        body: The body of that answer; without one, ``{"errors": [{"message": …}]}``.
        delay_s: Wait this long before anything else.
        ending: ``cut`` announces more bytes than it sends, ``reset`` drops the connection before
            the application sees the request, ``lost`` drops it after the request was carried out.
        keep_bytes: Shorten the body to this many bytes, with a Content-Length that fits.
        quirks: Oddities of the true answer, from :data:`QUIRKS`.
    """

    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str | None = None
    delay_s: float = 0.0
    ending: Ending = "complete"
    keep_bytes: int | None = None
    quirks: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        unknown = self.quirks - QUIRKS
        if unknown:
            raise ValueError(f"unknown quirks: {', '.join(sorted(unknown))}")

    @classmethod
    def rate_limited(cls, retry_after_s: float | str | None = None, **headers: str) -> Responder:
        """429, with ``Retry-After`` where given (seconds or an HTTP date)."""
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        if retry_after_s is not None:
            given["Retry-After"] = str(retry_after_s)
        return cls(status=429, headers=given)

    @classmethod
    def error(cls, status: int, message: str | None = None) -> Responder:
        """An error status with W&B's error body."""
        return cls(status=status, body=None if message is None else _errors(message))

    @classmethod
    def html(cls, status: int = 200) -> Responder:
        """A page of HTML, as proxies and sign-in walls send."""
        page = "<!DOCTYPE html><html><body>Sign in</body></html>"
        return cls(status=status, body=page, headers={"Content-Type": "text/html"})

    @classmethod
    def reset(cls) -> Responder:
        """The connection is reset; nothing was carried out."""
        return cls(ending="reset")

    @classmethod
    def lost_answer(cls) -> Responder:
        """The request is carried out, then the connection is closed."""
        return cls(ending="lost")

    @classmethod
    def cut_body(cls) -> Responder:
        """Half the true body arrives, then the connection is closed."""
        return cls(ending="cut")

    @classmethod
    def truncated(cls, keep_bytes: int) -> Responder:
        """The first bytes of the true body, as if the stored object were broken."""
        return cls(keep_bytes=keep_bytes)

    @classmethod
    def slow(cls, delay_s: float) -> Responder:
        """The true answer, late."""
        return cls(delay_s=delay_s)

    @classmethod
    def odd(cls, *quirks: str) -> Responder:
        """The true answer with oddities from :data:`QUIRKS`."""
        return cls(quirks=frozenset(quirks))

    @property
    def wire_body(self) -> bytes:
        """The body of an answer that the application does not give."""
        return (_errors(f"fault {self.status}") if self.body is None else self.body).encode()


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault.

    Args:
        match: Which requests.
        respond: How they go wrong.
        times: How often, None for ever.
        action: Called before the answer is made, in this process only: edit or delete runs while
            a client is between two pages.
    """

    match: Matcher
    respond: Responder
    times: int | None = 1
    action: Callable[[], object] | None = None

    def to_json(self) -> dict[str, object]:
        """The fault without its action."""
        respond = asdict(self.respond)
        respond["quirks"] = sorted(self.respond.quirks)
        return {"match": asdict(self.match), "respond": respond, "times": self.times}


class Faults:
    """The faults that are set; of several that match, the one added first is used first."""

    def __init__(self) -> None:
        self._entries: list[_Entry] = []
        self._lock = threading.Lock()

    def add(self, fault: Fault) -> None:
        """Set a fault."""
        with self._lock:
            self._entries.append(_Entry(fault))

    def clear(self) -> None:
        """Remove all faults."""
        with self._lock:
            self._entries.clear()

    def list_faults(self) -> list[Fault]:
        """The faults that may still strike."""
        with self._lock:
            return [entry.fault for entry in self._entries if not entry.is_spent]

    def take(self, request: Mapping[str, str | None]) -> Fault | None:
        """The fault for a request, which counts as used; None where nothing goes wrong."""
        with self._lock:
            applying = [entry for entry in self._entries if entry.applies(request)]
            if not applying:
                return None
            applying[0].used += 1
            return applying[0].fault


@dataclass(slots=True)
class _Entry:
    fault: Fault
    seen: int = 0
    used: int = 0

    @property
    def is_spent(self) -> bool:
        times = self.fault.times
        return times is not None and self.used >= times

    def applies(self, request: Mapping[str, str | None]) -> bool:
        if not self.fault.match.matches(request):
            return False
        self.seen += 1
        return not self.is_spent and self.fault.match.nth in (None, self.seen)


def _errors(message: str) -> str:
    return json.dumps({"errors": [{"message": message}]})
