"""Where a download goes: a whole file, or one range of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from tempfile import TemporaryFile
from typing import IO, Protocol

import requests

from wb_ops.errors import WarehouseRefused


class Writable(Protocol):
    """A binary file, as far as a download uses it."""

    def write(self, data: memoryview, /) -> int: ...
    def seek(self, offset: int, /) -> int: ...
    def truncate(self) -> int: ...
    def tell(self) -> int: ...


class Sink(Protocol):
    """Takes the body of an answer, attempt by attempt.

    `is_memory`: what it takes stays in memory, so that its size is bounded whatever it is.
    """

    is_memory: bool

    def begin(self, status: int, headers: Mapping[str, str]) -> bool:
        """Start anew; whether the body of this answer is the file (else it says what is wrong)."""

    def write(self, chunk: bytes) -> object:
        """Take the next bytes."""

    def takes(self, status: int) -> bool:
        """Whether an answer with this status was taken as the file."""


class WholeFile:
    """The whole body, from the file's beginning."""

    def __init__(self, file: Writable) -> None:
        self._file = file
        self.is_memory = isinstance(file, BytesIO)

    def begin(self, status: int, headers: Mapping[str, str]) -> bool:
        """Empty the file; only a 200 is the file."""
        self._file.seek(0)
        self._file.truncate()
        return self.takes(status)

    def write(self, chunk: bytes) -> None:
        """Append."""
        write_all(self._file.write, chunk)

    def takes(self, status: int) -> bool:
        """Only a 200 is a whole file."""
        return status == 200


class FileRange:
    """The bytes start..stop (not included) of a file, at their place in a local file.

    `total` is the size of the whole file, None before an answer came. A server that knows no
    ranges answers with the whole file: it is taken where `start` is 0, and `is_whole` says so.
    """

    is_memory = False

    def __init__(self, file: IO[bytes], start: int, stop: int) -> None:
        self._file = file
        self._start = self._at = start
        self._stop = stop
        self.total: int | None = None
        self.is_whole = False

    @property
    def headers(self) -> dict[str, str]:
        """What asks for the range; a compressed body would have other positions."""
        return {"Range": f"bytes={self._start}-{self._stop - 1}", "Accept-Encoding": "identity"}

    def begin(self, status: int, headers: Mapping[str, str]) -> bool:
        """Go to the place of the range."""
        self._at = self._start
        self.is_whole = status == 200
        if status == 206:
            self.total = self._checked_total(headers.get("Content-Range", ""))
        elif self.is_whole:
            os.ftruncate(self._file.fileno(), 0)
        return self.takes(status)

    def write(self, chunk: bytes) -> None:
        """Write at the place; other ranges may be written at the same time."""
        write_all(self._write_there, chunk)
        if self.is_whole:
            self.total = self._at

    def takes(self, status: int) -> bool:
        """A 206, or the whole file where it begins with this range."""
        return status == 206 or (status == 200 and self._start == 0)

    def _write_there(self, data: memoryview) -> int:
        # The number of a file that was closed may be another's: the file is asked for it each time.
        written = os.pwrite(self._file.fileno(), data, self._at)
        self._at += written
        return written

    def _checked_total(self, told: str) -> int:
        """The total of `bytes 0-99/1234`, where that is what was asked for."""
        extent, _, total = told.removeprefix("bytes ").partition("/")
        first, _, last = extent.partition("-")
        if not (first.isdigit() and last.isdigit() and total.isdigit()):
            raise requests.exceptions.ContentDecodingError("a range without its extent")
        if int(first) != self._start or int(last) != min(self._stop, int(total)) - 1:
            raise requests.exceptions.ContentDecodingError("another range than was asked for")
        return int(total)


def write_all(write: Callable[[memoryview], int], chunk: bytes) -> None:
    """Write a chunk to its end: a file without a buffer may take less of it at a time."""
    view = memoryview(chunk)
    while view:
        view = view[write(view) :]


def temporary_file() -> IO[bytes]:
    """An unlinked file: it is gone with this process, however that ends.

    Without a buffer, so that a full disk is seen by who writes, not when the file is closed.
    """
    with disk_errors():
        return TemporaryFile(prefix="wb_ops-", buffering=0)


@contextmanager
def disk_errors() -> Iterator[None]:
    """Turn what the disk refuses into our error; nothing that talks to W&B belongs in here.

    Raises:
        WarehouseRefused: the disk is full, or may not be written to (retry: never).
    """
    try:
        yield
    except OSError as exc:
        where = f" {exc.filename}" if exc.filename else ""
        raise WarehouseRefused(
            f"A file cannot be written to the disk{where} ({exc.strerror}): make room, or choose "
            "another folder (TMPDIR for what is read on the way to somewhere else).",
            exc,
            operation="download",
        ) from exc
