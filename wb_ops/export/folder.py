"""The folder that a plan lives in: a local path, or any URL that fsspec knows.

A file appears whole or not at all: it is written under another name and renamed, or uploaded in
one request where the storage is an object store.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol, TypeVar
from urllib.request import url2pathname
from uuid import uuid4

from wb_ops.errors import InvalidRequest, WarehouseRefused, WarehouseUnavailable
from wb_ops.warehouse.urls import without_secrets

T = TypeVar("T")


class Folder(Protocol):
    """Files by name; names may have slashes."""

    @property
    def uri(self) -> str:
        """Where it is; `open_folder(uri)` opens it again."""
        ...

    def write(self, name: str, data: bytes) -> None:
        """Write a file, replacing one of that name."""
        ...

    def read(self, name: str) -> bytes | None:
        """Return a file, or None if there is none."""
        ...

    def list_names(self) -> list[str]:
        """Every file of the folder and below, sorted."""
        ...

    def put(self, path: Path, name: str) -> None:
        """Copy a local file into the folder."""
        ...

    def get(self, name: str, path: Path) -> None:
        """Copy a file of the folder to a local path."""
        ...

    def delete(self, names: Iterable[str]) -> None:
        """Delete files; one that is gone already is no error."""
        ...

    def remove(self) -> None:
        """Delete the folder with all that is in it; one that is gone already is no error."""
        ...


def open_folder(url: str) -> Folder:
    """Return the folder at a path or URL; it need not exist yet.

    Raises:
        InvalidRequest: fsspec, or its package for this kind of storage, is missing (retry: never).
    """
    if url.startswith("file://"):
        return _LocalFolder(Path(url2pathname(url[len("file://") :])))
    if "://" not in url:
        return _LocalFolder(Path(url))
    try:
        from fsspec.core import url_to_fs

        filesystem, path = url_to_fs(url)
    except (ImportError, ValueError) as exc:
        raise InvalidRequest(
            f"{without_secrets(url)} needs fsspec and its package for this storage (such as s3fs, "
            f"gcsfs, adlfs): {exc}."
        ) from exc
    return _RemoteFolder(filesystem, path, url.rstrip("/"))


class _LocalFolder:
    def __init__(self, path: Path) -> None:
        self._path = path

    def __repr__(self) -> str:
        return f"_LocalFolder({self.uri!r})"

    @property
    def uri(self) -> str:
        return str(self._path)

    def write(self, name: str, data: bytes) -> None:
        self._place(name, lambda path: path.write_bytes(data))

    def read(self, name: str) -> bytes | None:
        try:
            return (self._path / name).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as exc:
            raise self._refused(exc) from exc

    def list_names(self) -> list[str]:
        files = (path for path in self._path.rglob("*") if path.is_file())
        names = (path.relative_to(self._path).as_posix() for path in files)
        return sorted(name for name in names if not name.endswith(".tmp"))

    def put(self, path: Path, name: str) -> None:
        self._place(name, lambda target: shutil.copyfile(path, target))

    def get(self, name: str, path: Path) -> None:
        try:
            shutil.copyfile(self._path / name, path)
        except OSError as exc:
            raise self._refused(exc) from exc

    def delete(self, names: Iterable[str]) -> None:
        for name in names:
            (self._path / name).unlink(missing_ok=True)

    def remove(self) -> None:
        try:
            shutil.rmtree(self._path)
        except FileNotFoundError:
            return
        except OSError as exc:
            raise self._refused(exc) from exc

    def _place(self, name: str, write: Callable[[Path], object]) -> None:
        target = self._path / name
        # Two processes that stage the same shard must not write into one file.
        temporary = target.with_name(f"{target.name}.{uuid4().hex[:8]}.tmp")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            write(temporary)
            os.replace(temporary, target)
        except OSError as exc:
            temporary.unlink(missing_ok=True)
            raise self._refused(exc) from exc

    def _refused(self, exc: OSError) -> WarehouseRefused:
        return WarehouseRefused(f"The plan folder {self.uri}: {exc}.", exc, path=self.uri)


class _RemoteFolder:
    def __init__(self, filesystem: Any, path: str, uri: str) -> None:
        self._filesystem = filesystem
        self._path = path.rstrip("/")
        self._uri = uri

    def __repr__(self) -> str:
        return f"_RemoteFolder({without_secrets(self._uri)!r})"

    @property
    def uri(self) -> str:
        return self._uri

    def write(self, name: str, data: bytes) -> None:
        self._do(lambda: self._filesystem.pipe_file(f"{self._path}/{name}", data))

    def read(self, name: str) -> bytes | None:
        try:
            return bytes(self._do(lambda: self._filesystem.cat_file(f"{self._path}/{name}")))
        except FileNotFoundError:
            return None

    def list_names(self) -> list[str]:
        # Others write here, too: what a listing said before is of no use.
        self._filesystem.invalidate_cache()
        try:
            found = self._do(lambda: self._filesystem.find(self._path))
        except FileNotFoundError:
            return []
        root = self._filesystem._strip_protocol(self._path).rstrip("/") + "/"
        return sorted(name.removeprefix(root) for name in found)

    def put(self, path: Path, name: str) -> None:
        self._do(lambda: self._filesystem.put_file(str(path), f"{self._path}/{name}"))

    def get(self, name: str, path: Path) -> None:
        try:
            self._do(lambda: self._filesystem.get_file(f"{self._path}/{name}", str(path)))
        except FileNotFoundError as exc:
            raise self._error(WarehouseRefused, exc) from exc

    def delete(self, names: Iterable[str]) -> None:
        paths = [f"{self._path}/{name}" for name in names]
        if paths:
            with suppress(FileNotFoundError):
                self._do(lambda: self._filesystem.rm(paths))

    def remove(self) -> None:
        with suppress(FileNotFoundError):
            self._do(lambda: self._filesystem.rm(self._path, recursive=True))

    def _do(self, action: Callable[[], T]) -> T:
        """Storage errors are as many as there are storages; what they say is theirs."""
        try:
            return action()
        except FileNotFoundError:
            raise
        except PermissionError as exc:
            raise self._error(WarehouseRefused, exc) from exc
        except OSError as exc:
            raise self._error(WarehouseUnavailable, exc) from exc

    def _error(
        self, kind: type[WarehouseRefused] | type[WarehouseUnavailable], exc: OSError
    ) -> WarehouseRefused | WarehouseUnavailable:
        shown = without_secrets(self._uri)
        return kind(f"The plan folder {shown}: {exc}.", exc, path=shown)
