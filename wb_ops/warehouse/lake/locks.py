"""One writer at a time: the kernel's file lock, or a file that runs out.

A lock saves work, it is not what keeps a dataset whole: a manifest can be published once for each
version, so of two writers that both believe to hold a lease one fails before anything is seen.
"""

from __future__ import annotations

import fcntl
import json
import os
import random
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

LEASE_S = 60.0


class LockHeld(Exception):
    """Another writer held the lock all the time that was waited for it."""


class Overtaken(Exception):
    """Another writer made the commit that was under way here."""


class LockFiles(Protocol):
    """What a lease needs of a storage."""

    def read(self, path: str) -> bytes: ...
    def create(self, path: str, data: bytes) -> None: ...
    def replace(self, path: str, data: bytes) -> None: ...
    def delete(self, paths: list[str]) -> None: ...


@contextmanager
def file_lock(path: Path, timeout_s: float) -> Iterator[None]:
    """Hold a lock of the kernel's, which ends with the process."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        _wait_for(lambda: _take(file.fileno()), timeout_s, 0.2)
        yield


def _take(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def lease(files: LockFiles, path: str, timeout_s: float) -> Iterator[None]:
    """Hold a lock file that says until when; renewed while the block runs.

    One that a killed writer left is taken over when it has run out.
    """
    owner = uuid.uuid4().hex
    _wait_for(lambda: _take_lease(files, path, owner), timeout_s, 1.0)
    ended = threading.Event()
    renewing = threading.Thread(
        target=_renew, args=(files, path, owner, ended), name="wb_ops-lease", daemon=True
    )
    renewing.start()
    try:
        yield
    finally:
        ended.set()
        renewing.join()
        if _is_ours(files, path, owner):
            files.delete([path])


def _take_lease(files: LockFiles, path: str, owner: str) -> bool:
    held = _read_lease(files, path)
    if held is not None:
        if held["expires_at"] > time.time():
            return False
        files.delete([path])
    try:
        files.create(path, _lease_text(owner))
    except FileExistsError:
        return False
    return True


def _read_lease(files: LockFiles, path: str) -> dict[str, Any] | None:
    try:
        held: dict[str, Any] = json.loads(files.read(path))
    except FileNotFoundError:
        return None
    return held


def _is_ours(files: LockFiles, path: str, owner: str) -> bool:
    held = _read_lease(files, path)
    return held is not None and held["owner"] == owner


def _renew(files: LockFiles, path: str, owner: str, ended: threading.Event) -> None:
    while not ended.wait(LEASE_S / 4):
        if not _is_ours(files, path, owner):
            return
        files.replace(path, _lease_text(owner))


def _lease_text(owner: str) -> bytes:
    held = {"owner": owner, "process": os.getpid(), "expires_at": time.time() + LEASE_S}
    return json.dumps(held).encode()


def _wait_for(take: Callable[[], bool], timeout_s: float, pause_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while not take():
        if time.monotonic() >= deadline:
            raise LockHeld
        # Jitter: two that wait for the same lock must not meet again and again.
        time.sleep(pause_s * random.uniform(0.1, 1))  # noqa: S311 - not for secrets
