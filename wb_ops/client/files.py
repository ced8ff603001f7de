"""Files of a run: what they are called, how large they are, and their bytes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from wb_ops.client.operations import FILES
from wb_ops.client.paging import iter_pages
from wb_ops.client.source import RunSource
from wb_ops.client.transport import Transport
from wb_ops.errors import NotFound

FILES_PER_PAGE = 50


@dataclass(frozen=True, slots=True)
class File:
    """One file of a run. Nothing is downloaded before `read()`."""

    name: str
    size_bytes: int
    mimetype: str | None
    md5: str | None
    _url: str
    _path: str
    _transport: Transport

    def __repr__(self) -> str:
        return f"<File {self._path}/{self.name} ({self.size_bytes} bytes)>"

    def read(self) -> bytes:
        """Return the file's content; one request, or two where W&B redirects to its storage."""
        return self._transport.download(self._url, f"{self._path}/{self.name}")


def fetch_file(source: RunSource, run_id: str, name: str) -> File:
    """Return one file by name.

    Raises:
        NotFound: the run has no such file (retry: never).
    """
    for file in iter_files(source, run_id, [name]):
        # W&B lists a name that was asked for even where nothing was uploaded: size 0, no hash.
        if file.name == name and (file.size_bytes or file.md5):
            return file
    path = f"{source.path}/{run_id}"
    raise NotFound(f"Run {path} has no file {name!r}.", operation="RunFiles", path=path)


def iter_files(source: RunSource, run_id: str, names: list[str] | None = None) -> Iterator[File]:
    """Yield a run's files lazily, 50 a request."""

    def fetch(cursor: str | None, size: int) -> dict[str, Any]:
        operation = source.operation(
            "RunFiles", FILES, name=run_id, fileCursor=cursor, fileLimit=size,
            fileNames=names or [],
        )  # fmt: skip
        return source.fetch_run_fields(operation).get("files") or {}

    for page in iter_pages(fetch, FILES_PER_PAGE):
        for node in page.nodes:
            yield File(
                name=str(node["name"]),
                size_bytes=int(node.get("sizeBytes") or 0),
                mimetype=node.get("mimetype"),
                md5=node.get("md5"),
                _url=str(node.get("url") or node.get("directUrl")),
                _path=f"{source.path}/{run_id}",
                _transport=source.transport,
            )
