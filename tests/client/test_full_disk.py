"""A disk that takes no more is our error with its remedy, wherever it happens."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from wb_ops import Api, WarehouseRefused
from wb_ops.client import live_rows
from wb_ops.devserver import DevServer

MOST_BYTES = 32 * 1024
ROWS = [{"_step": step, "loss": step / 7, "noise": hash(step * 0.1) / 3} for step in range(4_000)]
FULL = r"File too large.*make room.*TMPDIR"

Read = Callable[[Api, Path], object]


@pytest.fixture(autouse=True)
def seeded(server: DevServer, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"model.bin": bytes(300_000)}
    server.seed_run("ann", "trials", "exported", history=ROWS, files=files)
    server.seed_run("ann", "trials", "live", history=ROWS, parquet="off")
    # The server writes its exports before its disk is full too.
    server.export_run("ann", "trials", "exported")
    # Live rows go to the disk at once.
    monkeypatch.setattr(live_rows, "MAX_HELD_BYTES", 0)


READS: dict[str, Read] = {
    "a whole export": lambda api, _: api.run("ann/trials/exported").history_table(),
    "some columns": lambda api, _: api.run("ann/trials/exported").history_table(keys=["noise"]),
    "live rows": lambda api, _: api.run("ann/trials/live").history_table(),
    "many histories": lambda api, _: [
        reader.read_all() for _, reader in api.scan_histories(api.runs("ann/trials"))
    ],
    "a copy of a file": lambda api, folder: (
        api.run("ann/trials/exported").file("model.bin").download(folder).close()
    ),
}


@pytest.mark.parametrize("what", READS)
def test_a_full_disk_is_refused_once_and_leaves_nothing(
    server: DevServer,
    api: Api,
    full_disk: Callable[[int], AbstractContextManager[None]],
    tmp_path: Path,
    what: str,
):
    with full_disk(MOST_BYTES), pytest.raises(WarehouseRefused, match=FULL) as caught:
        READS[what](api, tmp_path)
    assert caught.value.advice.kind == "never"
    assert isinstance(caught.value.exc, OSError)
    downloads = [one for one in server.requests if one.method == "GET"]
    assert len(downloads) <= 1, "what the disk refuses is not asked for again"
    assert not list(tmp_path.iterdir())
    READS[what](api, tmp_path)


def test_a_folder_that_may_not_be_written_to(api: Api, tmp_path: Path):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(WarehouseRefused, match=r"taken.*another folder"):
        api.run("ann/trials/exported").file("model.bin").download(tmp_path / "taken")


def test_no_folder_for_temporary_files(api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.raises(WarehouseRefused, match=r"gone.*TMPDIR"):
        api.run("ann/trials/exported").history_table()
