"""The DuckDB warehouse: whole batches, one writer, refusals that name their remedy."""

from __future__ import annotations

import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial, reduce
from operator import xor
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from wb_ops import (
    AdviceKind,
    InvalidRequest,
    Warehouse,
    WarehouseBusy,
    WarehouseRefused,
    WarehouseUnavailable,
    connect,
)
from wb_ops.tables.history import history_batch
from wb_ops.tables.runs import runs_table
from wb_ops.tables.schemas import SCHEMA_VERSION, STATE, TABLES
from wb_ops.warehouse import Batch, Owner, dataset_name
from wb_ops.warehouse.base import staged_key, staged_name

OWNER = Owner("ann", "trials")
DATASET = "ann__trials"


def batch(
    tmp_path: Path, metrics: dict[str, list], run_id: str = "r1", owner: Owner = OWNER
) -> Batch:
    steps = range(len(next(iter(metrics.values()))))
    table = pa.table({"_step": list(steps), **metrics})
    names = {key: staged_name(key) for key in metrics}
    path = tmp_path / f"{run_id}.parquet"
    pq.write_table(history_batch(run_id, table, names, "load-1"), path)
    node = {"name": run_id, "id": "x", "state": "finished"}
    runs = runs_table([node], entity=owner.entity, project=owner.project, load_id="load-1")
    state = {"scope": "s", "entity": owner.entity, "project": owner.project, "schema_version": 1}
    return Batch(
        dataset=DATASET, owner=owner, load_id="load-1", runs=runs, history=[path],
        replaced=[run_id], meta={"_wb_state": pa.Table.from_pylist([state], schema=STATE)},
    )  # fmt: skip


def test_a_batch_is_readable_and_replaces_itself(warehouse: Warehouse, tmp_path: Path):
    for _ in range(2):
        committed = warehouse.commit(batch(tmp_path, {"loss": [0.5, float("nan")]}))
        assert (committed.runs, committed.history_rows) == (1, 2)
    rows = warehouse.query("select loss from history order by _step", DATASET).to_pylist()
    assert len(rows) == 2
    assert rows[0] == {"loss": 0.5}
    assert rows[1]["loss"] != rows[1]["loss"]


def test_hostile_names_get_columns_of_their_own(warehouse: Warehouse, tmp_path: Path):
    keys = ["loss", "Loss", "LOSS", 'a"b', "run_id", "a/b", "a.b", "x" * 200, "损失", "select"]
    warehouse.commit(batch(tmp_path, {key: [float(n)] for n, key in enumerate(keys)}))
    registry = warehouse.query("select * from _wb_columns", DATASET).to_pylist()
    names = {row["original_key"]: row["column_name"] for row in registry}
    assert set(names) == set(keys)
    assert names["loss"] == "loss"
    row = warehouse.query("select * from history", DATASET).to_pylist()[0]
    assert [row[names[key]] for key in keys] == [float(n) for n in range(len(keys))]


def test_a_column_keeps_its_name(warehouse: Warehouse, tmp_path: Path):
    assert warehouse.commit(batch(tmp_path, {"loss": [1.0]})).new_columns == ("loss",)
    assert warehouse.commit(batch(tmp_path, {"loss": [1.0]}, "r2")).new_columns == ()


def test_a_failing_batch_leaves_nothing(warehouse: Warehouse, tmp_path: Path):
    good = batch(tmp_path, {"loss": [1.0]})
    warehouse.commit(good)
    (tmp_path / "cut.parquet").write_bytes(good.history[0].read_bytes()[:100])
    torn = batch(tmp_path, {"loss": [2.0], "new": [3.0]}, "r2")
    with pytest.raises(pa.ArrowInvalid):
        warehouse.commit(
            Batch(**{**{name: getattr(torn, name) for name in Batch.__slots__},
                     "history": [*torn.history, tmp_path / "cut.parquet"]})
        )  # fmt: skip
    assert warehouse.query("select run_id from runs", DATASET).to_pylist() == [{"run_id": "r1"}]
    assert "new" not in warehouse.query("select * from history", DATASET).column_names


def test_a_column_that_was_altered_is_not_rounded_into(warehouse: Warehouse, tmp_path: Path):
    warehouse.commit(batch(tmp_path, {"loss": [1.0]}))
    path = warehouse.url.removeprefix("duckdb:///")
    with duckdb.connect(path) as connection:
        connection.execute(f"alter table {DATASET}.history alter loss type bigint")
    with pytest.raises(WarehouseRefused, match=r"history\.loss is BIGINT"):
        warehouse.commit(batch(tmp_path, {"loss": [0.5]}, "r2"))


def test_another_projects_dataset_is_refused(warehouse: Warehouse, tmp_path: Path):
    warehouse.commit(batch(tmp_path, {"loss": [1.0]}))
    with pytest.raises(WarehouseRefused, match="holds ann/trials, not bob/trials"):
        warehouse.check(DATASET, Owner("bob", "trials"))
    with pytest.raises(WarehouseRefused):
        warehouse.commit(batch(tmp_path, {"loss": [1.0]}, owner=Owner("bob", "trials")))


def test_a_newer_schema_is_refused(warehouse: Warehouse, tmp_path: Path):
    warehouse.commit(batch(tmp_path, {"loss": [1.0]}))
    with duckdb.connect(warehouse.url.removeprefix("duckdb:///")) as connection:
        connection.execute(f"update {DATASET}._wb_state set schema_version = {SCHEMA_VERSION + 1}")
    with pytest.raises(WarehouseRefused, match="upgrade wb_ops"):
        warehouse.check(DATASET, OWNER)


def test_a_dataset_named_like_its_file_is_refused(tmp_path: Path):
    with pytest.raises(WarehouseRefused, match=r"another file name, or .*dataset=, --dataset"):
        connect(f"duckdb:///{tmp_path / DATASET}.duckdb").check(DATASET, OWNER)


def test_another_writer_is_waited_for(warehouse: Warehouse, tmp_path: Path):
    path = warehouse.url.removeprefix("duckdb:///")
    hold = "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print('held', flush=True); input()"
    holder = subprocess.Popen(
        [sys.executable, "-c", hold, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    try:
        with pytest.raises(WarehouseBusy) as caught:
            connect(warehouse.url, lock_timeout_s=0.5).commit(batch(tmp_path, {"loss": [1.0]}))
        assert caught.value.advice.kind == "after"
        release = threading.Timer(1.0, holder.communicate, ["\n"])
        release.start()
        assert warehouse.commit(batch(tmp_path, {"loss": [1.0]})).runs == 1
        release.join()
    finally:
        holder.kill()
        holder.wait(10)


def test_a_pivot_is_a_query(warehouse: Warehouse, tmp_path: Path):
    warehouse.commit(batch(tmp_path, {"loss": [0.5], "a/copy": [1.0]}))
    pivot = "pivot history_tall on key using max(value) group by run_id"
    expected = [{"run_id": "r1", "a/copy": 1.0, "loss": 0.5}]
    for sql in (pivot, f"select * from ({pivot}) copy"):
        assert warehouse.query(sql, DATASET).to_pylist() == expected


def of_version(version: int, content: bytes) -> bytes:
    """As a DuckDB of other years would write it; the checksum is DuckDB's own."""
    header = content[8:12] + struct.pack("<Q", version) + content[20:4096]
    words = struct.unpack("<511Q", header)
    checksum = reduce(xor, (word * 0xBF58476D1CE4E5B9 % 2**64 for word in words), 5381)
    return struct.pack("<Q", checksum) + header + content[4096:]


NO_DUCKDB_FILE = "no DuckDB file, or a damaged one: choose another file, or restore"


@pytest.mark.parametrize(
    ("spoil", "remedy"),
    [
        (lambda content: b"hello, this is not a database" * 500, NO_DUCKDB_FILE),
        (lambda content: b"", NO_DUCKDB_FILE),
        (lambda content: b"SQLite format 3\0" + bytes(9000), NO_DUCKDB_FILE),
        (lambda content: content[:100], NO_DUCKDB_FILE),
        (lambda content: content[:8192], NO_DUCKDB_FILE),
        (lambda content: content[: len(content) // 2], NO_DUCKDB_FILE),
        (lambda content: content[:-1], NO_DUCKDB_FILE),
        (lambda content: content[:5000] + b"?" + content[5001:], NO_DUCKDB_FILE),
        (lambda content: content[:-500] + b"?" * 500, NO_DUCKDB_FILE),
        (partial(of_version, 9999), "Upgrade duckdb here, or choose another file"),
        (partial(of_version, 39), "Convert it with the DuckDB that wrote it, or choose another"),
    ],
    ids=["text", "empty", "SQLite", "in its header", "behind its headers", "half", "one byte less",
         "a changed header", "changed rows", "newer", "older"],
)  # fmt: skip
def test_a_file_that_cannot_be_read_is_refused_with_a_remedy(
    warehouse: Warehouse, tmp_path: Path, spoil: Callable[[bytes], bytes], remedy: str
):
    warehouse.commit(batch(tmp_path, {"loss": [0.5] * 5000}))
    path = Path(warehouse.url.removeprefix("duckdb:///"))
    path.write_bytes(spoil(path.read_bytes()))
    before = path.read_bytes()
    with pytest.raises(WarehouseRefused, match=remedy) as caught:
        warehouse.read_tables(DATASET, list(TABLES))
    assert caught.value.message.startswith(warehouse.url)
    assert "\n" not in caught.value.message
    assert path.read_bytes() == before


def test_a_look_beside_a_commit_lets_no_other_process_in(warehouse: Warehouse, tmp_path: Path):
    """Whoever opens and closes a file drops the locks that its process holds on it."""
    warehouse.commit(batch(tmp_path, {"loss": [0.5]}))
    path = warehouse.url.removeprefix("duckdb:///")
    intrude = "import duckdb, sys; duckdb.connect(sys.argv[1])"
    with duckdb.connect(path):
        warehouse.check(DATASET, OWNER)
        intruder = subprocess.run(
            [sys.executable, "-c", intrude, path], capture_output=True, text=True, check=False
        )
    assert "Could not set lock on file" in intruder.stderr


def test_a_folder_is_no_file(tmp_path: Path):
    for ask in (lambda one: one.check(DATASET, OWNER), lambda one: one.query("select 1")):
        with pytest.raises(WarehouseRefused, match="a folder: give a file in it"):
            ask(connect(f"duckdb:///{tmp_path}"))


def test_what_a_disk_fails_to_give_for_now_can_be_tried_again(warehouse: Warehouse, tmp_path: Path):
    warehouse.commit(batch(tmp_path, {"loss": [0.5]}))
    with pytest.raises(WarehouseUnavailable, match="Input/output error") as caught:
        warehouse.query("select * from read_text('/proc/self/mem')")
    assert caught.value.advice.kind is AdviceKind.BACKOFF


def test_what_may_not_be_written_names_the_remedy(
    open_folder: Path, protect: Callable[[Path], None]
):
    path = open_folder / "x.duckdb"
    duckdb.connect(str(path)).close()
    protect(path)
    with pytest.raises(WarehouseRefused, match=r"x.duckdb.*Permission denied.*write there, or"):
        connect(f"duckdb:///{path}").check(DATASET, OWNER)


def test_a_folder_that_takes_no_file_names_the_remedy(
    open_folder: Path, protect: Callable[[Path], None]
):
    protect(open_folder)
    with pytest.raises(WarehouseRefused, match=r"is read-only, .* or choose another place"):
        connect(f"duckdb:///{open_folder / 'x.duckdb'}").check(DATASET, OWNER)


def test_too_little_memory_names_its_option(warehouse: Warehouse, tmp_path: Path):
    warehouse.commit(batch(tmp_path, {"loss": [1.0]}))
    with pytest.raises(WarehouseRefused, match=r"more than 20MB: put \?memory_limit=") as caught:
        connect(f"{warehouse.url}?memory_limit=20MB").query(
            "select list(i) from range(30000000) t(i)"
        )
    assert "SET threads" not in str(caught.value)


@pytest.mark.parametrize("stays", [True, False], ids=["rows in memory", "rows in a file"])
def test_a_commit_with_too_little_memory_is_not_tried_again(
    warehouse: Warehouse, tmp_path: Path, stays: bool
):
    large = batch(tmp_path, {f"m{number}": [0.5 + number] * 60_000 for number in range(60)})
    if stays:
        large = replace(large, history=[pq.read_table(path) for path in large.history])
    with pytest.raises(WarehouseRefused, match=r"put \?memory_limit=") as caught:
        connect(f"{warehouse.url}?memory_limit=30MB").commit(large)
    assert caught.value.advice.kind is AdviceKind.NEVER
    assert warehouse.commit(large).history_rows == 60_000


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("postgres", "duckdb:///FILE"),
        ("mysql://host/db", "No warehouse for mysql"),
        ("duckdb://x.duckdb", "three slashes"),
        ("duckdb://me:hunter2@host/x", "three slashes"),
        ("duckdb://md:db?motherduck_token=hunter2", "three slashes"),
        ("//me:hunter2@host/db", "a URL without a scheme"),
        ("duckdb:///", "names no file"),
        ("postgresql:///db?history_columns=5000", "history_columns='5000': give 900 at most"),
        ("postgresql:///db?flat_columns=901", "flat_columns='901': give 900 at most"),
    ],
)
def test_a_url_that_is_no_warehouse(url: str, words: str):
    with pytest.raises(WarehouseRefused, match=words) as caught:
        connect(url)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "url", [None, 5, Path("hunter2"), b"postgresql://me:hunter2@h/db", ["hunter2@h"]]
)
def test_what_is_no_text_is_no_url(url: Any):
    with pytest.raises(
        InvalidRequest, match=r"url is a \w+: give a text, such as duckdb:"
    ) as caught:
        connect(url)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("seconds", ["5", None, True, -1, float("nan")])
def test_what_is_no_number_is_no_timeout(seconds: Any):
    with pytest.raises(InvalidRequest, match=r"lock_timeout_s=.*: give seconds"):
        connect("duckdb:///x.duckdb", lock_timeout_s=seconds)


@pytest.mark.parametrize("limit", ["lots", "", "4", "150%"])
def test_a_limit_that_duckdb_does_not_take_is_refused_before_a_file_is_made(
    warehouse: Warehouse, limit: str
):
    limited = connect(f"{warehouse.url}?memory_limit={limit}")
    with pytest.raises(WarehouseRefused, match=r"memory_limit=.*4GB") as caught:
        limited.check(DATASET, OWNER)
    assert limit in str(caught.value)
    assert not Path(warehouse.url.removeprefix("duckdb:///")).exists()


def test_the_name_of_a_dataset():
    assert dataset_name("my-team", "my-project") == "my_team__my_project"
    assert dataset_name("ann", "A") != dataset_name("ann", "a")


@pytest.mark.parametrize("key", ["loss", "Loss", "a/b", "ü 损失", ""])
def test_staged_names_come_back(key: str):
    assert staged_key(staged_name(key)) == key
    assert staged_key("run_id") is None
