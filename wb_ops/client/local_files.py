"""Files of others on this disk: under the folder that was named, whole, or not at all."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO

from wb_ops.client.downloads import disk_errors
from wb_ops.errors import InvalidRequest

Progress = Callable[[int, int], None]
_DRIVE = re.compile(r"^[A-Za-z]:")


def safe_target(root: str | os.PathLike[str], name: str) -> Path:
    """Where a file called `name` goes below `root`; names come from the server.

    Raises:
        InvalidRequest: the name leads out of `root`, also through a link (retry: never).
    """
    parts = re.split(r"[/\\]", name)
    is_plain = name and not _DRIVE.match(name) and "\0" not in name
    if not is_plain or any(part in ("", ".", "..") for part in parts):
        raise InvalidRequest(f"File name {name!r} would leave the folder {str(root)!r}.")
    folder = Path(root).resolve()
    target = folder.joinpath(*name.split("/"))
    if not target.parent.resolve().is_relative_to(folder):
        raise InvalidRequest(f"File name {name!r} leads out of {str(root)!r} through a link.")
    return target


@contextmanager
def whole_file(target: Path) -> Iterator[IO[bytes]]:
    """A file beside `target` that takes its place at the end, if all went well.

    Raises:
        WarehouseRefused: the folder is full, or may not be written to (retry: never).
    """
    part = target.with_name(f".{target.name[:100]}.{secrets.token_hex(4)}.part")
    try:
        with ExitStack() as opened:
            with disk_errors():
                target.parent.mkdir(parents=True, exist_ok=True)
                # Without a buffer: a full disk is seen by who writes, not at the end.
                file = opened.enter_context(open(part, "x+b", buffering=0))
            yield file
        with disk_errors():
            os.replace(part, target)
    except BaseException:
        with suppress(OSError):
            os.unlink(part)
        raise


@contextmanager
def temporary_folder(prefix: str) -> Iterator[Path]:
    """A folder for the time of a block.

    Raises:
        WarehouseRefused: there is no room for temporary files (retry: never).
    """
    with disk_errors():
        folder = TemporaryDirectory(prefix=prefix)
    with folder as name:
        yield Path(name)


class Watched:
    """A file that tells `progress` how many bytes it has been given, after every write."""

    def __init__(self, file: IO[bytes], size_bytes: int, progress: Progress) -> None:
        self._file = file
        self._size_bytes = size_bytes
        self._progress = progress
        self.seek = file.seek
        self.tell = file.tell
        self.truncate = file.truncate

    def write(self, chunk: memoryview) -> int:
        """Write and tell."""
        written = self._file.write(chunk)
        self._progress(self._file.tell(), self._size_bytes)
        return written
