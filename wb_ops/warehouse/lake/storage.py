"""Where the files of a lake are: what a local folder and an object store both can do."""

from __future__ import annotations

import errno
import os
import uuid
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO, Any, Protocol

from wb_ops.errors import WarehouseRefused
from wb_ops.warehouse.lake.locks import file_lock, lease


class Storage(Protocol):
    """Files below one root. Paths are relative to it and have forward slashes.

    Methods raise what the system or the store's library raises; `failures` gives it our names.
    """

    def uri(self, path: str = "") -> str:
        """Where a file is, as DuckDB and Delta Lake open it."""
        ...

    def list_files(self, folder: str) -> list[str]:
        """Name all files below a folder; none if there is no such folder."""
        ...

    def list_folders(self) -> list[str]:
        """Name the folders directly below the root."""
        ...

    def read(self, path: str) -> bytes:
        """Read a whole file."""
        ...

    def create(self, path: str, data: bytes) -> None:
        """Write a file whole; FileExistsError where there is one, whoever made it."""
        ...

    def check_exclusive(self, folder: str) -> None:
        """Refuse a store whose `create` does not fail where there is a file."""
        ...

    def replace(self, path: str, data: bytes) -> None:
        """Write a file whole, in place of one that is there."""
        ...

    def open_new(self, path: str) -> AbstractContextManager[IO[bytes]]:
        """Write a file that is there, whole, once the block has ended without an error."""
        ...

    def open_old(self, path: str) -> IO[bytes]:
        """Open a file for reading."""
        ...

    def delete(self, paths: Iterable[str]) -> None:
        """Remove files; one that is gone already is no error."""
        ...

    def check_writable(self) -> None:
        """Raise what a write would raise, as far as that can be known without one."""
        ...

    def lock(self, path: str, timeout_s: float) -> AbstractContextManager[None]:
        """Be the only writer. LockHeld after `timeout_s`."""
        ...


class LocalStorage:
    """A folder of this machine. A lock is the kernel's: a killed process holds none."""

    def __init__(self, root: Path) -> None:
        self._root = root.absolute()

    def uri(self, path: str = "") -> str:
        return str(self._root / path)

    def list_files(self, folder: str) -> list[str]:
        found = (self._root / folder).rglob("*")
        return [path.relative_to(self._root).as_posix() for path in found if path.is_file()]

    def list_folders(self) -> list[str]:
        if not self._root.exists():
            return []
        return sorted(path.name for path in self._root.iterdir() if path.is_dir())

    def read(self, path: str) -> bytes:
        return (self._root / path).read_bytes()

    def create(self, path: str, data: bytes) -> None:
        # Writers hold the lock, so nobody comes between the question and the answer.
        if (self._root / path).exists():
            raise FileExistsError(path)
        self.replace(path, data)

    def check_exclusive(self, folder: str) -> None:
        """The lock is the kernel's."""

    def replace(self, path: str, data: bytes) -> None:
        with self.open_new(path) as file:
            file.write(data)

    @contextmanager
    def open_new(self, path: str) -> Iterator[IO[bytes]]:
        target = self._root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.tmp")
        try:
            with part.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            part.replace(target)
            _sync_folder(target.parent)
        finally:
            part.unlink(missing_ok=True)

    def open_old(self, path: str) -> IO[bytes]:
        return (self._root / path).open("rb")

    def delete(self, paths: Iterable[str]) -> None:
        for path in paths:
            (self._root / path).unlink(missing_ok=True)

    def check_writable(self) -> None:
        there = self._root if self._root.exists() else self._root.parent
        if not there.exists():
            raise FileNotFoundError(
                errno.ENOENT,
                "does not exist: create it, or give an absolute path with four slashes",
                str(there),
            )
        if not there.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "is a file, not a folder", str(there))
        is_effective = os.access in os.supports_effective_ids
        if not os.access(there, os.W_OK | os.X_OK, effective_ids=is_effective):
            raise PermissionError(errno.EACCES, "no permission to write", str(there))

    def lock(self, path: str, timeout_s: float) -> AbstractContextManager[None]:
        return file_lock(self._root / path, timeout_s)


class FsspecStorage:
    """A place that fsspec reaches, such as a bucket. A lock is a file that runs out."""

    def __init__(self, url: str) -> None:
        import fsspec

        self._protocol = url.split("://", 1)[0]
        # A cached listing would hide what another writer has just committed.
        self._fs: Any = fsspec.filesystem(
            self._protocol, use_listings_cache=False, skip_instance_cache=True
        )
        self._root = url.split("://", 1)[1].rstrip("/")

    @property
    def filesystem(self) -> Any:
        """The fsspec file system, for DuckDB."""
        return self._fs

    def uri(self, path: str = "") -> str:
        return f"{self._protocol}://{self._at(path)}"

    def list_files(self, folder: str) -> list[str]:
        try:
            found = self._fs.find(self._at(folder))
        except FileNotFoundError:
            return []
        start = len(self._fs._strip_protocol(self._root)) + 1
        return [str(path)[start:] for path in found]

    def list_folders(self) -> list[str]:
        try:
            found = self._fs.ls(self._root, detail=True)
        except FileNotFoundError:
            return []
        return sorted(
            one["name"].rstrip("/").rsplit("/", 1)[-1]
            for one in found
            if one["type"] == "directory"
        )

    def read(self, path: str) -> bytes:
        return bytes(self._fs.cat_file(self._at(path)))

    def create(self, path: str, data: bytes) -> None:
        self._fs.pipe_file(self._at(path), data, mode="create")

    def check_exclusive(self, folder: str) -> None:
        # Many of fsspec's file systems take mode="create" and overwrite all the same.
        path = f"{folder}/.probe-{uuid.uuid4().hex}"
        self.create(path, b"1")
        try:
            self.create(path, b"2")
        except FileExistsError:
            return
        finally:
            self.delete([path])
        raise WarehouseRefused(
            f"{self._protocol}:// overwrites files that it was asked to create: two writers would "
            "undo each other's commits. Use a local folder, s3:// or another store that can create "
            "a file only where there is none."
        )

    def replace(self, path: str, data: bytes) -> None:
        self._fs.pipe_file(self._at(path), data)

    @contextmanager
    def open_new(self, path: str) -> Iterator[IO[bytes]]:
        file = self._fs.open(self._at(path), "wb", autocommit=False)
        try:
            yield file
            file.close()
            file.commit()
        except BaseException:
            file.discard()
            raise

    def open_old(self, path: str) -> IO[bytes]:
        file: IO[bytes] = self._fs.open(self._at(path), "rb")
        return file

    def delete(self, paths: Iterable[str]) -> None:
        if doomed := [self._at(path) for path in paths]:
            try:
                self._fs.rm(doomed)
            except FileNotFoundError:
                for path in doomed:
                    if self._fs.exists(path):
                        self._fs.rm_file(path)

    def check_writable(self) -> None:
        # A bucket that is not there looks like an empty one to everything but this.
        self._fs.ls(self._root.split("/", 1)[0])

    def lock(self, path: str, timeout_s: float) -> AbstractContextManager[None]:
        return lease(self, path, timeout_s)

    def _at(self, path: str) -> str:
        return f"{self._root}/{path}" if path else self._root


def _sync_folder(folder: Path) -> None:
    """Make a rename outlive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
