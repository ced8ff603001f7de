"""Downloads exported history files; of a large file only the columns that are wanted."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq

from wb_ops.client.downloads import FileRange
from wb_ops.client.transport import Transport
from wb_ops.errors import MalformedResponse

# The first request for a file with few wanted columns: a small file comes whole with it.
HEAD_BYTES = 1024**2
TAIL_BYTES = 64 * 1024
# Ranges nearer to each other than this are fetched as one.
MAX_GAP_BYTES = 128 * 1024
# Ranges pay while they are few and leave out at least half of the file.
MAX_RANGES = 32
MAX_SHARE = 0.5

Extent = tuple[int, int]


def download_export(
    transport: Transport, file: IO[bytes], url: str, path: str, names: Sequence[str] | None
) -> int | None:
    """Download a parquet file, or of a large one the parts that hold the columns `names`.

    The local file has the size of the whole; what was not fetched is a hole in it.

    Returns:
        The bytes that were fetched, None if the signed URL is refused.

    Raises:
        MalformedResponse: it is no parquet file, or changed meanwhile (retry: backoff).
        CommError: by the table in `errors`.
    """
    if names is None:
        is_good = transport.download_to(file, url, path)
        return file.seek(0, 2) if is_good else None
    head = FileRange(file, 0, HEAD_BYTES)
    if not transport.download_into(head, url, path, headers=head.headers):
        return None
    total = head.total or 0
    if head.is_whole or total <= HEAD_BYTES:
        return total
    fetched = HEAD_BYTES
    for extent in _wanted(transport, file, url, path, names, total):
        part = FileRange(file, *extent)
        if not transport.download_into(part, url, path, headers=part.headers):
            return None
        if part.total != total:
            raise MalformedResponse(f"An export of the history of {path} changes meanwhile.")
        fetched += extent[1] - extent[0]
    return fetched


def _wanted(
    transport: Transport,
    file: IO[bytes],
    url: str,
    path: str,
    names: Sequence[str],
    total: int,
) -> Iterator[Extent]:
    """The ranges to fetch after the head: first the footer, then what it says."""
    tail = max(HEAD_BYTES, total - TAIL_BYTES)
    yield tail, total
    footer = total - 8 - _footer_bytes(file, total, path)
    if footer < tail:
        yield max(HEAD_BYTES, footer), tail
        tail = max(HEAD_BYTES, footer)
    chunks = _joined(_column_chunks(file, names, path), tail)
    if len(chunks) > MAX_RANGES or sum(stop - start for start, stop in chunks) > MAX_SHARE * total:
        chunks = [(HEAD_BYTES, tail)] if tail > HEAD_BYTES else []
    yield from chunks


def _footer_bytes(file: IO[bytes], total: int, path: str) -> int:
    file.seek(total - 8)
    ending = file.read(8)
    size = int.from_bytes(ending[:4], "little")
    if ending[4:] != b"PAR1" or not 0 < size <= total - 12:
        raise MalformedResponse(f"An export of the history of {path} is not a whole parquet file.")
    return size


def _column_chunks(file: IO[bytes], names: Sequence[str], path: str) -> Iterator[Extent]:
    try:
        metadata = pq.read_metadata(file)
    except (pa.ArrowException, OSError) as exc:
        raise MalformedResponse(
            f"An export of the history of {path} has an unreadable footer.", exc
        ) from exc
    for group in range(metadata.num_row_groups):
        row_group = metadata.row_group(group)
        for index in range(row_group.num_columns):
            column = row_group.column(index)
            if _is_wanted(column.path_in_schema, names):
                start = column.dictionary_page_offset or column.data_page_offset
                start = min(start, column.data_page_offset)
                yield start, start + column.total_compressed_size


def _is_wanted(column: str, names: Sequence[str]) -> bool:
    # A nested column has leaves name.a, name.b; more than is needed does no harm.
    return any(column == name or column.startswith(name + ".") for name in names)


def _joined(chunks: Iterator[Extent], end: int) -> list[Extent]:
    """The parts between head and `end`, near ones as one."""
    joined: list[Extent] = []
    for start, stop in sorted(chunks):
        start, stop = max(start, HEAD_BYTES), min(stop, end)
        if start >= stop:
            continue
        if joined and start - joined[-1][1] <= MAX_GAP_BYTES:
            joined[-1] = joined[-1][0], max(stop, joined[-1][1])
        else:
            joined.append((start, stop))
    return joined


def native_file(file: IO[bytes]) -> pa.NativeFile | IO[bytes]:
    """The same file, read by Arrow itself where the system has names for open files."""
    name = f"/proc/self/fd/{file.fileno()}"
    return pa.OSFile(name) if os.path.exists(name) else file
