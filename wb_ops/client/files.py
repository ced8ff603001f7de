"""Files of a run: what they are called, how large they are, their bytes, and copies on disk."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from io import BytesIO, TextIOWrapper
from typing import Any

from wb_ops.client.downloads import Writable
from wb_ops.client.items import read_time
from wb_ops.client.lists import LazyList
from wb_ops.client.local_files import Progress, Watched, safe_target, whole_file
from wb_ops.client.operations import FILES
from wb_ops.client.paging import iter_pages
from wb_ops.client.source import RunSource
from wb_ops.client.texts import texts_of
from wb_ops.client.transport import Transport
from wb_ops.errors import InvalidRequest, NotFound, ServerUnavailable

FILES_PER_PAGE = 50


@dataclass(frozen=True, slots=True)
class File:
    """One file of a run. Nothing is downloaded before `read()` or `download()`.

    Attributes:
        id: the server's global id.
        name: its path in the run, with `/` between folders.
        size_bytes: its size when it was listed.
        mimetype: what the server takes it for.
        md5: the server's hash of it.
        updated_at: when it was last written, UTC; None for one that was never uploaded.
        url: W&B's own address of it, which wants the key.
        direct_url: the storage's address of it, signed and expiring.
    """

    name: str
    size_bytes: int
    mimetype: str | None = None
    md5: str | None = None
    updated_at: datetime | None = None
    id: str | None = None
    url: str | None = field(default=None, repr=False)
    direct_url: str | None = field(default=None, repr=False)
    _path: str = field(default="", repr=False)
    _transport: Transport | None = field(default=None, repr=False)

    @property
    def size(self) -> int:
        """The size in bytes, under W&B's name."""
        return self.size_bytes

    def read(self) -> bytes:
        """Return the file's content; one request, or two where W&B redirects to its storage.

        Raises:
            MalformedResponse: not as many bytes as were listed came (retry: backoff).
        """
        content = BytesIO()
        self._fetch(content)
        return content.getvalue()

    def download(
        self,
        root: str | os.PathLike[str] = ".",
        replace: bool = False,
        exist_ok: bool = False,
        progress: Progress | None = None,
    ) -> TextIOWrapper:
        """Copy the file to `root/name` and return it opened as text, as W&B's SDK does.

        The copy appears whole or not at all. A file that is there already is an error, or is
        left and opened (`exist_ok`), or is replaced (`replace`). `progress(received, size)` is
        called with bytes after every piece.

        Raises:
            InvalidRequest: the file exists, or its name leads out of `root` (retry: never).
            MalformedResponse: not as many bytes as were listed came (retry: backoff).
        """
        target = safe_target(root, self.name)
        if replace or not target.exists():
            with whole_file(target) as file:
                self._fetch(Watched(file, self.size_bytes, progress) if progress else file)
        elif not exist_ok:
            raise InvalidRequest(f"{target} exists: pass replace=True, or exist_ok=True.")
        return open(target, encoding="utf-8")

    def _fetch(self, sink: Writable) -> None:
        path = f"{self._path}/{self.name}"
        address = self.url or self.direct_url
        if self._transport is None or not address:
            raise NotFound(f"{path} has no address.", path=path)
        if not self._transport.download_to(sink, address, path, size_bytes=self.size_bytes):
            raise ServerUnavailable(f"The address of {path} has expired: list the file again.")


class Files(LazyList[File]):
    """The files of a run, list-like, read page by page as they are needed."""

    def __init__(
        self,
        source: RunSource,
        run_id: str,
        names: Sequence[str] | None = None,
        pattern: str | None = None,
        per_page: int = FILES_PER_PAGE,
    ) -> None:
        chosen = [] if names is None else list(texts_of("names", names))
        if chosen and pattern:
            raise InvalidRequest("files() takes names or a pattern, not both.")

        def read() -> Iterator[File]:
            return _iter_files(source, run_id, chosen, pattern, per_page)

        super().__init__(read, f"Files {source.path}/{run_id}")


def fetch_file(source: RunSource, run_id: str, name: str) -> File:
    """Return one file by name.

    Raises:
        NotFound: the run has no such file (retry: never).
    """
    for file in Files(source, run_id, [name]):
        # W&B lists a name that was asked for even where nothing was uploaded: size 0, no hash.
        if file.name == name and (file.size_bytes or file.md5):
            return file
    path = f"{source.path}/{run_id}"
    raise NotFound(f"Run {path} has no file {name!r}.", operation="RunFiles", path=path)


def _iter_files(
    source: RunSource, run_id: str, names: list[str], pattern: str | None, per_page: int
) -> Iterator[File]:
    def fetch(cursor: str | None, size: int) -> dict[str, Any]:
        operation = source.operation(
            "RunFiles", FILES, name=run_id, fileCursor=cursor, fileLimit=size, fileNames=names,
            pattern=pattern,
        )  # fmt: skip
        return source.fetch_run_fields(operation).get("files") or {}

    for page in iter_pages(fetch, per_page):
        for node in page.nodes:
            yield _file(source, run_id, node)


def _file(source: RunSource, run_id: str, node: dict[str, Any]) -> File:
    path = f"{source.path}/{run_id}"
    return File(
        name=str(node["name"]),
        size_bytes=int(node.get("sizeBytes") or 0),
        mimetype=node.get("mimetype"),
        md5=node.get("md5"),
        updated_at=read_time(node, "updatedAt", f"{path}/{node['name']}"),
        id=node.get("id"),
        url=node.get("url"),
        direct_url=node.get("directUrl"),
        _path=path,
        _transport=source.transport,
    )
