"""Kills, other writers, other owners, other versions, and places that take nothing."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import commit_forever
import pyarrow as pa
import pytest
from batches import DATASET, OWNER, Batches, flat, rows
from destinations import NEWER_TABLES, Destination

from wb_ops import Warehouse, WarehouseBusy, WarehouseError, WarehouseRefused
from wb_ops.tables.schemas import BACKFILLS, SCHEMA_VERSION
from wb_ops.warehouse import Owner

KILLS = int(os.environ.get("WB_OPS_KILLS", "3"))
SEED = int(os.environ.get("WB_OPS_SEED", "0"))
BOB = Owner("bob", "trials")

# Each must name one and the same load for all of its rows.
LOADS_SEEN = """
    select distinct _load_id from runs union select _load_id from history
    union select _load_id from history_long union select _load_id from runs_flat
    union select load_id from _wb_receipts union select load_id from _wb_state
"""


def journal_row(**values: str) -> pa.Table:
    row = {
        "backfill_id": "b1", "run_id": "r1", "target": "summary", "key": "best", "event": "intent",
        "recorded_at": datetime.now(UTC), "new_value": '{"a" : 1.0}', **values,
    }  # fmt: skip
    return pa.Table.from_pylist([row], schema=BACKFILLS)


def test_a_kill_leaves_one_load_or_the_next(destination: Destination, tmp_path: Path):
    rng = random.Random(SEED)
    options = {"history_columns": 4}
    url = destination.url + ("&" if "?" in destination.url else "?") + "history_columns=4"
    command = [sys.executable, commit_forever.__file__, url, str(tmp_path)]
    warehouse = destination.connect(lock_timeout_s=60, **options)
    last, taken_back = 1, 0
    warehouse.commit(commit_forever.load(tmp_path, last))
    for _ in range(KILLS):
        process = subprocess.Popen([*command, str(last + 1)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        begun = int(process.stdout.readline())
        time.sleep(rng.uniform(0, 0.6))
        process.kill()
        begun = max([begun, *map(int, process.stdout.read().split())])
        process.wait(20)
        seen = rows(warehouse, LOADS_SEEN)
        assert len(seen) == 1, seen
        assert seen[0][0] in (f"load-{begun - 1}", f"load-{begun}")
        taken_back += seen[0][0] == f"load-{begun - 1}"
        # The same commit once more ends where no kill had been.
        committed = warehouse.commit(commit_forever.load(tmp_path, begun))
        assert committed.history_rows == begun * len(commit_forever.RUNS)
        assert_is_load(warehouse, begun)
        last = begun
    print(f"{KILLS} kills, {taken_back} before their commit's end")
    assert taken_back or KILLS < 20, "no kill has met a commit"


def assert_is_load(warehouse: Warehouse, number: int) -> None:
    assert rows(warehouse, LOADS_SEEN) == [(f"load-{number}",)]
    tall = "select run_id, count(*), count(distinct _step) from history_tall group by 1 order by 1"
    cells = number * commit_forever.METRICS
    assert rows(warehouse, tall) == [(run_id, cells, number) for run_id in commit_forever.RUNS]
    system = rows(warehouse, "select run_id, value from system_metrics order by 1")
    assert system == [(run_id, float(number)) for run_id in commit_forever.RUNS]


def test_two_writers_take_turns(destination: Destination, make: Batches):
    batches = [
        make.batch({f"r{n}": {f"m{n}": [float(n)] * 3, "all": [1.0] * 3}}, load_id=f"load-{n}")
        for n in range(4)
    ]
    warehouses = [destination.connect(lock_timeout_s=60) for _ in batches]
    with ThreadPoolExecutor(len(batches)) as pool:
        list(pool.map(lambda pair: pair[0].commit(pair[1]), zip(warehouses, batches, strict=True)))
    found = rows(warehouses[0], "select run_id, count(*) from history_tall group by 1 order by 1")
    assert found == [(f"r{n}", 6) for n in range(4)]
    assert rows(warehouses[0], "select count(*), count(distinct column_name) from _wb_columns") == [
        (5, 5)
    ]


def test_a_writer_that_waits_too_long_says_busy(destination: Destination, make: Batches):
    warehouse = destination.connect()
    warehouse.commit(make.batch({"r1": {"a": [1.0]}}))
    batch = make.batch({"r2": {"a": [2.0]}})
    with destination.held(DATASET):
        with pytest.raises(WarehouseBusy) as caught:
            destination.connect(lock_timeout_s=0.3).commit(batch)
        assert caught.value.advice.kind == "after"
        assert caught.value.advice.seconds
    assert warehouse.commit(batch).runs == 1


def test_a_writer_is_waited_for(destination: Destination, make: Batches):
    warehouse = destination.connect(lock_timeout_s=60)
    warehouse.commit(make.batch({"r1": {"a": [1.0]}}))
    held = destination.held(DATASET)
    held.__enter__()
    release = threading.Timer(1.0, held.__exit__, (None, None, None))
    release.start()
    assert warehouse.commit(make.batch({"r2": {"a": [2.0]}})).runs == 1
    release.join()


def test_another_projects_dataset_is_refused(warehouse: Warehouse, make: Batches):
    warehouse.commit(make.batch({"r1": {"a": [1.0]}}))
    with pytest.raises(WarehouseRefused, match="holds ann/trials, not bob/trials"):
        warehouse.check(DATASET, BOB)
    with pytest.raises(WarehouseRefused, match="dataset="):
        warehouse.commit(make.batch({"r2": {"b": [1.0]}}, owner=BOB))
    with pytest.raises(WarehouseRefused, match="dataset="):
        warehouse.append(DATASET, "_wb_backfills", journal_row(), owner=BOB)
    assert rows(warehouse, "select run_id from runs") == [("r1",)]
    assert rows(warehouse, "select count(*) from _wb_backfills") == [(0,)]


def test_a_newer_schema_is_refused(destination: Destination, make: Batches):
    warehouse = destination.connect()
    warehouse.commit(make.batch({"r1": {"a": [1.0]}}))
    destination.set_schema_version(DATASET, SCHEMA_VERSION + 1)
    with pytest.raises(WarehouseRefused, match="upgrade wb_ops"):
        warehouse.check(DATASET, OWNER)
    with pytest.raises(WarehouseRefused, match="upgrade wb_ops"):
        warehouse.commit(make.batch({"r2": {"a": [1.0]}}))
    assert rows(warehouse, "select run_id from runs") == [("r1",)]


def test_an_older_dataset_gets_what_is_new(destination: Destination, make: Batches):
    warehouse = destination.connect()
    warehouse.commit(make.batch({"r1": {"a": [1.0]}}))
    destination.downgrade(DATASET)
    warehouse.check(DATASET, OWNER)
    held = warehouse.read_tables(DATASET, ["runs", *NEWER_TABLES])
    assert {name: table.num_rows for name, table in held.items()} == {
        "runs": 1, **dict.fromkeys(NEWER_TABLES, 0)
    }  # fmt: skip
    warehouse.commit(make.batch({"r2": {"a": [2.0]}}, flat=flat({"r2": {"config.lr": 0.5}})))
    assert rows(warehouse, "select run_id, value from history_tall order by 1") == [
        ("r1", 1.0), ("r2", 2.0)
    ]  # fmt: skip
    assert rows(warehouse, "select config__lr from runs_flat") == [(0.5,)]
    assert rows(warehouse, "select max(schema_version) from _wb_state") == [(SCHEMA_VERSION,)]
    assert rows(warehouse, "select count(*) from all_runs", None) == [(2,)]


def test_a_place_that_takes_nothing_refuses(destination: Destination, make: Batches):
    destination.connect().commit(make.batch({"r1": {"a": [1.0]}}))
    batch = make.batch({"r2": {"a": [2.0]}})
    with destination.read_only() as warehouse:
        with pytest.raises(WarehouseRefused):
            warehouse.check(DATASET, OWNER)
        with pytest.raises(WarehouseRefused):
            warehouse.commit(batch)
        assert rows(warehouse, "select run_id from runs") == [("r1",)]


def test_a_place_that_is_not_there(destination: Destination, make: Batches):
    warehouse = destination.missing()
    with pytest.raises(WarehouseError):
        warehouse.check(DATASET, OWNER)
    with pytest.raises(WarehouseError):
        warehouse.commit(make.batch({"r1": {"a": [1.0]}}))
    with pytest.raises(WarehouseError):
        warehouse.query("select 1 as one")


def test_an_empty_place_has_empty_tables(warehouse: Warehouse):
    warehouse.check(DATASET, OWNER)
    tables = warehouse.read_tables(DATASET, ["runs", "_wb_state", "_wb_receipts"])
    assert {name: table.num_rows for name, table in tables.items()} == dict.fromkeys(tables, 0)
    with pytest.raises(WarehouseRefused):
        warehouse.query("select * from runs", DATASET)


def test_a_broken_batch_leaves_nothing(warehouse: Warehouse, make: Batches):
    good = make.batch({"r1": {"a": [1.0]}})
    warehouse.commit(good)
    cut = make.folder / "cut.parquet"
    cut.write_bytes(make.staged(good.history[0]).read_bytes()[:100])
    staged = make.history("r2", {"a": [2.0], "new": [3.0]})
    with pytest.raises(pa.ArrowInvalid):
        warehouse.commit(make.batch({}, nodes={"r2": {}}, history=[staged, cut]))
    wrong = pa.table({"run_id": ["r3"], "config": [1.0], "_load_id": ["load-1"]})
    with pytest.raises(ValueError, match="runs_flat"):
        warehouse.commit(make.batch({"r3": {"new": [1.0]}}, flat=wrong))
    assert rows(warehouse, "select run_id from runs") == [("r1",)]
    assert "new" not in warehouse.query("select * from history", DATASET).column_names


def test_journal_rows_are_appended(warehouse: Warehouse, make: Batches):
    warehouse.append(DATASET, "_wb_backfills", journal_row(), owner=OWNER)
    warehouse.append(DATASET, "_wb_backfills", journal_row(event="written"), owner=OWNER)
    table = warehouse.read_tables(DATASET, ["_wb_backfills"])["_wb_backfills"]
    assert table["event"].to_pylist() == ["intent", "written"]
    assert table["new_value"].to_pylist() == ['{"a" : 1.0}'] * 2
    with pytest.raises(WarehouseRefused, match="holds ann/trials"):
        warehouse.commit(make.batch({"r1": {"a": [1.0]}}, owner=BOB))
    warehouse.commit(make.batch({"r1": {"a": [1.0]}}))
    assert rows(warehouse, "select count(*) from _wb_backfills") == [(2,)]


def test_the_journal_takes_every_value_that_wandb_does(warehouse: Warehouse):
    """NaN and the infinities are no JSON, and W&B's summaries have them."""
    texts = ["NaN", "-Infinity", '{"a": [1e400, NaN]}', '"NaN"', '"nul\\u0000"', "1e22"]
    for text in texts:
        row = journal_row(new_value=text, key=text)
        warehouse.append(DATASET, "_wb_backfills", row, owner=OWNER)
    found = rows(warehouse, "select key, cast(new_value as varchar) from _wb_backfills")
    assert sorted(found) == sorted((text, text) for text in texts)


@pytest.mark.parametrize(
    "sql",
    ["delete from runs", "drop table runs", "create table t (a int)", "update runs set notes = 'x'",
     "select 1; delete from runs", "insert into runs select * from runs", "selec", "",
     "with x as (insert into runs select * from runs returning *) select * from x",
     "select * from nowhere"],
)  # fmt: skip
def test_a_query_writes_nothing(warehouse: Warehouse, make: Batches, sql: str):
    warehouse.commit(make.batch({"r1": {"a": [1.0]}}))
    with pytest.raises(WarehouseRefused):
        warehouse.query(sql, DATASET)
    assert rows(warehouse, "select run_id, notes from runs") == [("r1", None)]


def test_a_query_is_one_select(warehouse: Warehouse, make: Batches):
    warehouse.commit(make.batch({"r1": {"a": [1.0]}}))
    with tempfile.TemporaryDirectory(prefix="wb_ops-query-") as folder:
        # PostgreSQL's server is somebody else.
        Path(folder).chmod(0o777)
        target = Path(folder, "target")
        for sql in (
            f"copy (select 1) to '{target}'", f"copy runs to '{target}'",
            f"with x as (copy runs to '{target}') select * from x",
            f"copy (pivot runs on state using count(*)) to '{target}'", f"attach '{target}' as x",
            f"export database '{target}'", "install json", "pragma version", "set timezone = 'CET'",
            f"select 1; copy runs to '{target}'", "select 1; select 2", "explain select 1", "", ";",
        ):  # fmt: skip
            with pytest.raises(WarehouseRefused, match="one SELECT"):
                warehouse.query(sql, DATASET)
        assert not list(Path(folder).iterdir())
    assert rows(warehouse, "select run_id as copy from runs -- copy") == [("r1",)]


def test_a_query_says_which_dataset_is_not_there(warehouse: Warehouse, make: Batches):
    warehouse.commit(make.batch({"r1": {"a": [1.0]}}))
    with pytest.raises(WarehouseRefused, match="no dataset 'other'"):
        warehouse.query("select 1 as one", "other")
    counted = warehouse.query("select run_id, count(*) as n from history group by 1", DATASET)
    assert counted.to_pylist() == [{"run_id": "r1", "n": 1}]
    assert counted["n"].type == pa.int64()


@pytest.mark.parametrize("dataset", ["information_schema", "pg_catalog", "wb_ops", ""])
def test_names_that_sql_needs_are_refused(warehouse: Warehouse, make: Batches, dataset: str):
    with pytest.raises(WarehouseRefused, match="dataset="):
        warehouse.commit(make.batch({"r1": {"a": [1.0]}}, dataset=dataset))
