"""A lake's commits: whole or not there, whoever is killed or comes second."""

from __future__ import annotations

import json
import threading
import time
from contextlib import nullcontext
from pathlib import Path

import fsspec
import pytest
from batches import DATASET, Batches, rows

from wb_ops import Warehouse, WarehouseBusy, WarehouseRefused, connect
from wb_ops.warehouse import Batch
from wb_ops.warehouse.lake import locks
from wb_ops.warehouse.lake.manifest import KEPT
from wb_ops.warehouse.lake.storage import LocalStorage

ROWS = 50


def load(make: Batches, number: int) -> Batch:
    """Two runs whose rows all say which load they are of, and a metric that only it has."""
    values = [float(number)] * ROWS
    return make.batch(
        {"r1": {"load": values, f"only_{number}": values}, "r2": {"load": values}},
        load_id=f"load-{number}",
    )


def newest_manifest(lake_folder: Path) -> dict:
    return json.loads(max((lake_folder / DATASET / "_manifests").glob("0*.json")).read_text())


def load_seen(lake: Warehouse) -> int:
    """The load of which every table speaks; fails where one query sees several."""
    sql = (
        "select 'state' as what, load_id, null as value, count(*) as n from _wb_state group by all "
        "union all select run_id, _load_id, null, count(*) from runs group by all "
        "union all select run_id, _load_id, load, count(*) from history group by all"
    )
    found = rows(lake, sql)
    name = next(load_id for what, load_id, _, _ in found if what == "state")
    number = int(name.removeprefix("load-"))
    of_runs = [(run_id, name, None, 1) for run_id in ("r1", "r2")]
    of_rows = [(run_id, name, float(number), ROWS) for run_id in ("r1", "r2")]
    assert sorted(found, key=str) == sorted([("state", name, None, 1), *of_runs, *of_rows], key=str)
    return number


def parts_on_disk(lake_folder: Path) -> list[str]:
    folder = lake_folder / DATASET
    found = [path for path in folder.rglob("*") if ".parquet" in path.name]
    return [path.relative_to(folder).as_posix() for path in found]


def parts_known(lake_folder: Path) -> list[str]:
    manifest = newest_manifest(lake_folder)
    live = [part["path"] for table in manifest["tables"].values() for part in table["parts"]]
    return live + [one["path"] for one in manifest["retired"]]


def test_what_a_killed_parquet_commit_left_is_removed(tmp_path: Path, make: Batches):
    lake = connect(f"parquet:///{tmp_path / 'lake'}")
    lake.commit(load(make, 1))
    history = tmp_path / "lake" / DATASET / "history"
    left = ["000000000002-ab-0.parquet", ".000000000002-cd-0.parquet.0a1b2c3d.tmp"]
    of_a_later_writer = "000000000009-ef-0.parquet"
    for name in [*left, of_a_later_writer]:
        (history / name).write_text("cut")
    assert load_seen(lake) == 1
    lake.commit(load(make, 2))
    assert not any((history / name).exists() for name in left)
    assert (history / of_a_later_writer).exists()
    assert load_seen(lake) == 2


def test_old_states_are_kept_for_a_while_and_then_removed(tmp_path: Path, make: Batches):
    lake = connect(f"parquet:///{tmp_path / 'lake'}")
    for number in range(KEPT + 5):
        lake.commit(load(make, number))
        if number == 4:
            script = (tmp_path / "lake" / DATASET / "views.sql").read_text()
            old = [path for path in parts_known(tmp_path / "lake") if path in script]
    folder = tmp_path / "lake" / DATASET
    assert len(list((folder / "_manifests").iterdir())) == KEPT
    assert all((folder / path).exists() for path in old if "/000000000005-" in path)
    assert not list(folder.glob("history/000000000001-*"))
    assert set(parts_on_disk(tmp_path / "lake")) == set(parts_known(tmp_path / "lake"))


def test_what_a_killed_delta_commit_wrote_is_undone(tmp_path: Path, make: Batches):
    lake = connect(f"delta:///{tmp_path / 'lake'}")
    lake.commit(make.batch({"r1": {"loss": [1.0]}}))
    manifests = tmp_path / "lake" / DATASET / "_manifests"
    lake.commit(make.batch({"torn": {"other": [2.0]}}))
    max(manifests.iterdir()).unlink()
    assert rows(lake, "select run_id, loss from history") == [("r1", 1.0)]
    lake.commit(make.batch({"r2": {"loss": [3.0]}}))
    sql = "select run_id, loss from history order by 1"
    assert rows(lake, sql) == [("r1", 1.0), ("r2", 3.0)]
    assert "other" not in lake.query("select * from history", DATASET).column_names


def test_a_commit_that_was_overtaken_is_busy_and_changes_nothing(
    lake: Warehouse, make: Batches, monkeypatch: pytest.MonkeyPatch
):
    lake.commit(load(make, 1))
    other = connect(lake.url)

    storage = lake._storage
    create = storage.create

    def create_late(path: str, data: bytes) -> None:
        if "_manifests" in path:
            monkeypatch.setattr(storage, "create", create)
            other.commit(load(make, 3))
        create(path, data)

    for one in (storage, other._storage):
        monkeypatch.setattr(one, "lock", lambda *_: nullcontext())
    monkeypatch.setattr(storage, "create", create_late)
    with pytest.raises(WarehouseBusy, match="took over") as caught:
        lake.commit(load(make, 2))
    assert caught.value.advice.kind == "after"
    assert load_seen(lake) == 3
    lake.commit(load(make, 4))
    assert load_seen(lake) == 4


def test_two_writers_take_turns(kind: str, bucket: str, make: Batches):
    lake = connect(f"{kind}+s3://{bucket}/lake", lock_timeout_s=60)
    batches = [make.batch({f"r{n}": {"loss": [float(n)]}}) for n in range(2)]
    writers = [
        threading.Thread(target=connect(lake.url, lock_timeout_s=60).commit, args=[batch])
        for batch in batches
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    found = rows(lake, "select run_id, loss from history order by 1")
    assert found == [(f"r{n}", float(n)) for n in range(2)]


def test_a_lease_that_ran_out_is_taken_over(
    bucket: str, make: Batches, monkeypatch: pytest.MonkeyPatch
):
    lake = connect(f"parquet+s3://{bucket}/lake", lock_timeout_s=0.2)
    storage = lake._storage
    held = json.dumps({"owner": "x", "expires_at": time.time() + 1000}).encode()
    storage.create(f"{DATASET}/_lock", held)
    with pytest.raises(WarehouseBusy, match="held by another writer"):
        lake.commit(load(make, 1))
    ended = json.dumps({"owner": "x", "expires_at": time.time() - 1}).encode()
    storage.replace(f"{DATASET}/_lock", ended)
    lake.commit(load(make, 1))
    assert load_seen(lake) == 1
    assert f"{DATASET}/_lock" not in storage.list_files(DATASET)


def test_a_lease_is_renewed_while_it_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(locks, "LEASE_S", 0.4)
    storage = LocalStorage(tmp_path)
    with locks.lease(storage, "_lock", 1):
        before = json.loads(storage.read("_lock"))["expires_at"]
        while json.loads(storage.read("_lock"))["expires_at"] == before:
            time.sleep(0.05)
    assert storage.list_files("") == []


def test_a_folder_of_the_other_kind_is_refused(tmp_path: Path, make: Batches):
    connect(f"parquet:///{tmp_path / 'lake'}").commit(load(make, 1))
    with pytest.raises(WarehouseRefused, match="holds parquet tables"):
        connect(f"delta:///{tmp_path / 'lake'}").commit(load(make, 2))


def test_a_store_that_overwrites_what_it_should_create_is_refused(
    make: Batches, monkeypatch: pytest.MonkeyPatch
):
    memory = fsspec.filesystem("memory")

    def overwrite(path: str, value: bytes, mode: str = "overwrite") -> None:
        with memory.open(path, "wb") as file:
            file.write(value)

    lake = connect("parquet+memory://somewhere/lake")
    storage = lake._storage
    memory.makedirs("/somewhere", exist_ok=True)
    monkeypatch.setattr(storage.filesystem, "pipe_file", overwrite)
    with pytest.raises(WarehouseRefused, match="memory:// overwrites"):
        lake.commit(load(make, 1))
    assert memory.find("/somewhere") == []
    monkeypatch.undo()
    lake.commit(load(make, 1))
    assert load_seen(lake) == 1
