"""Copies the parquet files that W&B exports of a run's history to a folder, as they are."""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from wb_ops.client.local_files import safe_target, whole_file
from wb_ops.errors import IncompleteHistory

if TYPE_CHECKING:
    from wb_ops.client.history import HistoryReader
    from wb_ops.client.source import RunSource
    from wb_ops.client.sources import HistorySources


@dataclass(frozen=True, slots=True)
class HistoryExports:
    """Copies of the exported files of one history, in W&B's order, which is not that of steps.

    Attributes:
        paths: the files; none for a run that logged nothing.
        contains_live_data: whether rows are missing in them that are not exported yet.
        errors: always empty, as in W&B's SDK where all went well: a file that fails is raised.
    """

    paths: list[Path]
    contains_live_data: bool
    errors: dict[Path, str] = field(default_factory=dict)


class _UrlRefused(Exception):
    """A signed URL has expired: none of the copies takes its place."""


def copy_exports(
    reader: HistoryReader,
    source: RunSource,
    run_id: str,
    folder: str | os.PathLike[str],
    *,
    require_complete: bool,
) -> HistoryExports:
    """Copy the files, none before all have come; one request, and one for each file.

    Raises:
        IncompleteHistory: with `require_complete`, rows are not exported yet (retry: backoff).
        MalformedResponse: a file is no parquet file with steps (retry: backoff).
        CommError: by the table in `errors`.
    """
    path = f"{source.path}/{run_id}"

    def once(found: HistorySources) -> HistoryExports | None:
        is_live = found.first_live_step is not None
        if require_complete and is_live:
            raise IncompleteHistory(
                f"Rows of run {path} are not exported yet: say require_complete_history=False for "
                "what is, or read them with history_table().",
                path=path,
            )
        # The names that W&B's SDK gives them.
        stem = f"{source.entity}_{source.project}_{run_id}".replace("/", "_")
        names = [f"{stem}_{number}.runhistory.parquet" for number in range(len(found.urls))]
        targets = [safe_target(folder, name) for name in names]
        try:
            _copy(reader, source, path, found.urls, targets)
        except _UrlRefused:
            return None
        return HistoryExports(targets, is_live)

    return reader.with_urls(source, run_id, once)


def _copy(
    reader: HistoryReader,
    source: RunSource,
    path: str,
    urls: tuple[str, ...],
    targets: list[Path],
) -> None:
    from wb_ops.client.exports import native_file
    from wb_ops.client.parts import file_pieces

    with ExitStack() as opened:
        files = [opened.enter_context(whole_file(target)) for target in targets]
        if None in reader.download(source, files, urls, path, None):
            raise _UrlRefused
        for file in files:
            file_pieces(native_file(file), path)
