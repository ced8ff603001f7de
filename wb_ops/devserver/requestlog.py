"""What was asked of the server: one record a request, in memory only."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, overload

Origin: TypeAlias = Literal["api", "storage"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestRecord:
    """One request and how it was answered.

    ``authorization`` is the raw header, for tests that look for leaks; it is in no repr and leaves
    the process only as ``authorization_sha256``. ``status`` is 0 where no answer was sent.
    """

    time: float
    origin: Origin
    method: str
    path: str
    query_string: str = field(repr=False)
    operation: str | None
    variables: Mapping[str, object]
    document: str = field(repr=False)
    header_names: Sequence[str] = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    authorization: str | None = field(repr=False)
    status: int
    duration_s: float
    answer_bytes: int

    @property
    def has_authorization(self) -> bool:
        """Whether the request carried an Authorization header."""
        return self.authorization is not None

    @property
    def authorization_sha256(self) -> str | None:
        """The header's SHA-256, to compare without showing it."""
        if self.authorization is None:
            return None
        return hashlib.sha256(self.authorization.encode()).hexdigest()

    def to_json(self) -> dict[str, object]:
        """The record without the raw header."""
        return {
            "time": self.time,
            "origin": self.origin,
            "method": self.method,
            "path": self.path,
            "operation": self.operation,
            "variables": dict(self.variables),
            "header_names": list(self.header_names),
            "headers": dict(self.headers),
            "has_authorization": self.has_authorization,
            "authorization_sha256": self.authorization_sha256,
            "status": self.status,
            "duration_s": self.duration_s,
            "answer_bytes": self.answer_bytes,
        }


class RequestLog(Sequence[RequestRecord]):
    """The records so far; iterating gives a stable snapshot."""

    def __init__(self) -> None:
        self._records: list[RequestRecord] = []
        self._lock = threading.Lock()

    def append(self, record: RequestRecord) -> None:
        """Add a record."""
        with self._lock:
            self._records.append(record)

    def clear(self) -> None:
        """Forget all records."""
        with self._lock:
            self._records.clear()

    def snapshot(self) -> list[RequestRecord]:
        """A copy that later requests do not change."""
        with self._lock:
            return list(self._records)

    def operations(self) -> list[str]:
        """The GraphQL operations in the order they came."""
        return [record.operation for record in self.snapshot() if record.operation]

    def __len__(self) -> int:
        return len(self.snapshot())

    @overload
    def __getitem__(self, index: int) -> RequestRecord: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[RequestRecord]: ...

    def __getitem__(self, index: int | slice) -> RequestRecord | Sequence[RequestRecord]:
        return self.snapshot()[index]

    def __iter__(self) -> Iterator[RequestRecord]:
        return iter(self.snapshot())
