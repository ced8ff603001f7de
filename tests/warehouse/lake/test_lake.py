"""Parquet and Delta lakes beside what tests/contract asks of every warehouse: on S3 too."""

from __future__ import annotations

import math
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
from batches import DATASET, OWNER, Batches, rows

from wb_ops import Warehouse, WarehouseRefused, WarehouseUnavailable, connect
from wb_ops.tables.schemas import TABLES
from wb_ops.warehouse.lake.changes import table_schema
from wb_ops.warehouse.lake.folders import dataset_of, folder_of


def test_a_batch_is_readable_and_replaces_itself(lake: Warehouse, make: Batches):
    batch = make.batch({"r1": {"loss": [0.5, math.nan]}})
    for _ in range(2):
        committed = lake.commit(batch)
        assert (committed.runs, committed.history_rows) == (1, 2)
    found = rows(lake, "select loss from history order by _step")
    assert found[0] == (0.5,)
    assert math.isnan(found[1][0])
    assert len(found) == 2
    tables = lake.read_tables(DATASET, list(TABLES))
    assert {name: table.schema for name, table in tables.items()} == {
        name: table.schema for name, table in TABLES.items()
    }
    assert rows(lake, "select run_id from all_runs", None) == [("r1",)]


def test_a_tail_is_appended_and_can_be_sent_again(lake: Warehouse, make: Batches):
    lake.commit(make.batch({"r1": {"loss": [0.0, 1.0]}, "r2": {"loss": [9.0]}}))
    tail = make.batch(
        {"r1": {"loss": [2.0, 3.0], "acc": [0.1, 0.2]}},
        first_step=2, replaced=[], tails={"r1": 2},
    )  # fmt: skip
    for _ in range(2):
        assert lake.commit(tail).history_rows == 2
    found = rows(lake, "select run_id, _step, loss, acc from history order by 1, 2")
    assert found == [
        ("r1", 0, 0.0, None), ("r1", 1, 1.0, None), ("r1", 2, 2.0, 0.1), ("r1", 3, 3.0, 0.2),
        ("r2", 0, 9.0, None),
    ]  # fmt: skip


def test_hostile_run_ids_are_told_apart(local_lake: Warehouse, make: Batches):
    ids = ["a'b", 'a"b', "a\\b", "a;--", "%", "a"]
    local_lake.commit(make.batch({run_id: {"loss": [1.0]} for run_id in ids}))
    local_lake.commit(make.batch({"a'b": {"loss": [2.0, 3.0]}}))
    assert sorted(rows(local_lake, "select run_id, loss from history")) == sorted(
        [("a'b", 2.0), ("a'b", 3.0), *((run_id, 1.0) for run_id in ids[1:])]
    )


def test_the_script_gives_the_tables_to_anybodys_duckdb(
    local_lake: Warehouse, make: Batches, tmp_path: Path
):
    batch = make.batch({"r1": {"Loss": [1.0], "loss": [2.0], "note": ["it's"]}})
    local_lake.commit(batch)
    with duckdb.connect(str(tmp_path / "mine.duckdb")) as connection:
        connection.execute((tmp_path / "lake" / DATASET / "views.sql").read_text())
        tall = connection.sql(f"select key, value from {DATASET}.history_tall order by value")
        assert tall.fetchall() == [("Loss", 1.0), ("loss", 2.0)]
        note = connection.sql(f"select _extra ->> 'note' from {DATASET}.history")
        assert note.fetchall() == [("it's",)]
        complete = connection.sql(f"select run_id, status from {DATASET}.wb_completeness")
        assert complete.fetchall() == [("r1", "complete")]


def test_many_small_commits_make_few_parts(tmp_path: Path, make: Batches):
    lake = connect(f"parquet:///{tmp_path / 'lake'}")
    for index in range(70):
        lake.commit(make.batch({f"r{index}": {f"m{index % 3}": [float(index)]}}))
    found = rows(lake, "select run_id, coalesce(m0, m1, m2) from history")
    assert sorted(found) == sorted((f"r{index}", float(index)) for index in range(70))
    text = (tmp_path / "lake" / DATASET / "views.sql").read_text()
    assert text.count(f"{DATASET}/history/") < 20


@pytest.mark.parametrize("name", ["a b", "../up", "/", ".", "Ünï", "a~b", "x_y-1"])
def test_a_datasets_folder_is_one_and_says_its_name(name: str):
    folder = folder_of(name)
    assert dataset_of(folder) == name
    assert "/" not in folder
    assert not folder.startswith(".")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("parquet+s3://key:hunter2@bucket/x", "no user and no password"),
        ("delta:///x?secret=hunter2", "unknown option 'secret'"),
        ("parquet+nosuch://bucket/x", "no storage that fsspec knows"),
        ("parquet+s3:///x", "names no bucket"),
        ("delta://x", "three slashes"),
        ("parquet:///", "names no folder"),
        ("duckdb+s3://bucket/x", "No warehouse for duckdb"),
    ],
)
def test_a_url_that_is_no_lake(url: str, words: str):
    with pytest.raises(WarehouseRefused, match=words) as caught:
        connect(url)
    assert "hunter2" not in str(caught.value)


def test_a_bucket_that_is_not_there_is_refused(bucket: str, kind: str, make: Batches):
    lake = connect(f"{kind}+s3://not-{bucket}/x")
    for call in (
        lambda: lake.check(DATASET, OWNER),
        lambda: lake.commit(make.batch({"r1": {"loss": [1.0]}})),
    ):
        with pytest.raises(WarehouseRefused, match="does not exist"):
            call()


def test_a_store_without_credentials_is_refused(
    bucket: str, kind: str, monkeypatch: pytest.MonkeyPatch
):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(WarehouseRefused, match="credentials"):
        connect(f"{kind}+s3://{bucket}/x").check(DATASET, OWNER)


def test_a_store_that_does_not_answer_is_unavailable(
    bucket: str, kind: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(WarehouseUnavailable) as caught:
        connect(f"{kind}+s3://{bucket}/x").check(DATASET, OWNER)
    assert caught.value.advice.kind == "backoff"
    assert "a-secret-key" not in str(caught.value)


def test_dynamic_columns_stand_before_the_last_ones():
    schema = table_schema("runs_flat", {"b": pa.string(), "a": pa.float64()})
    assert schema.names == ["run_id", "a", "b", "_load_id"]
