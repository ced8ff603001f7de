"""PostgreSQL's URLs, errors and secrets; what every destination does is in tests/contract."""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "contract"))

from batches import Batches, flat

from wb_ops import (
    WarehouseError,
    WarehouseRefused,
    WarehouseUnavailable,
    connect,
)
from wb_ops.tables.schemas import BACKFILLS
from wb_ops.warehouse import Batch, Owner
from wb_ops.warehouse.layout import Layout, read_table
from wb_ops.warehouse.writing import write_batch

OWNER = Owner("ann", "trials")
URLS = [
    "postgresql://ann:S3cret%2Fword@127.0.0.1:1/db",
    "postgresql://ann@127.0.0.1:1/db?password=S3cret%2Fword&sslmode=disable",
    "postgresql://ann:S3cret%2Fword@127.0.0.1:bad/db",
    "postgresql://ann:S3cret%2Fword@127.0.0.1:1/db?no_such_option=S3cret%2Fword",
]


@pytest.mark.parametrize("url", URLS)
def test_no_password_is_shown(url: str):
    warehouse = connect(url)
    with pytest.raises(WarehouseError) as caught:
        warehouse.check("ann__trials", OWNER)
    seen = [repr(warehouse), warehouse.url, *traceback.format_exception(caught.value)]
    assert not [text for text in seen if "S3cret" in text]


def test_the_url_keeps_what_tells_the_place():
    url = "postgresql://ann:x@db.example:5433/runs?host=/run/pg&sslmode=require&history_columns=9"
    assert connect(url).url == "postgresql://ann@db.example:5433/runs?host=/run/pg"
    assert connect("postgresql:///runs").url == "postgresql:///runs"


@pytest.mark.parametrize(
    "url",
    ["postgresql://ann:S3cret@word@host/db", "postgresql://ann:S3#cret@host/db",
     "postgresql://ann:S3/cret@host/db", "postgresql://ann:S3?cret@host/db"],
)  # fmt: skip
def test_a_password_that_breaks_the_url_is_refused_unseen(url: str):
    with pytest.raises(WarehouseRefused, match="%40") as caught:
        connect(url)
    assert "cret" not in str(caught.value)


def test_a_server_that_is_not_there_can_be_tried_again():
    with pytest.raises(WarehouseUnavailable, match="Connection refused") as caught:
        connect("postgresql://ann@127.0.0.1:1/db").query("select 1")
    assert caught.value.advice.kind == "backoff"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("postgres:@", "nobody:S3cret@"), 'role "nobody" does not exist'),
        (("/postgres?", "/no_such_db?"), 'database "no_such_db" does not exist'),
    ],
)
def test_who_is_not_let_in_is_refused(postgres_server: str, change: tuple[str, str], words: str):
    with pytest.raises(WarehouseRefused, match=words):
        connect(postgres_server.replace(*change)).check("ann__trials", OWNER)


@pytest.mark.parametrize("dataset", ["pg_mine", "x" * 64])
def test_names_that_postgres_takes_for_itself_or_cuts(dataset: str):
    with pytest.raises(WarehouseRefused, match="63 bytes"):
        connect("postgresql://ann@127.0.0.1:1/db").check(dataset, OWNER)


def test_a_user_without_rights_is_told_before_anything_is_read(postgres_server: str):
    admin = connect(postgres_server)
    with admin._connection() as connection, connection.cursor() as cursor:
        cursor.execute("create role reader login")
        connection.commit()
    reader = connect(postgres_server.replace("postgres:@", "reader:@"))
    with pytest.raises(WarehouseRefused, match="grant CREATE"):
        reader.check("nobodys_dataset", OWNER)


def test_as_many_columns_as_may_be_asked_for_fit_into_a_row(
    new_database: Callable[[], str], tmp_path: Path
):
    url, make = new_database(), Batches(tmp_path)
    wide = {"r" * 128: {f"m{number}": [number + 0.5] for number in range(950)}}
    at_most = f"{url}&history_columns=900"
    committed = connect(at_most).commit(make.batch(wide, load_id="l" * 40))
    assert (committed.history_rows, committed.long_rows) == (1, 50)


def test_a_row_that_is_too_long_names_the_remedy(postgres_server: str, tmp_path: Path):
    leaves: dict[str, float | str] = {f"config.n{n:03}": float(n) for n in range(550)}
    leaves |= {f"config.t{n:03}": f"{n} " + "long text " * 40 for n in range(300)}
    batch = Batches(tmp_path).batch({}, nodes={"r1": {}}, flat=flat({"r1": leaves}))
    warehouse = connect(f"{postgres_server}&flat_columns=900")
    with pytest.raises(WarehouseRefused, match=r"(?s)too big.*behind the URL.*--dataset"):
        warehouse.commit(replace(batch, dataset="too_wide"))


def test_numbers_that_arrow_has_no_type_for(postgres_server: str):
    sql = (
        "select sum(n) as whole, avg(n) as mean, null::numeric as none from (values (1), (2)) t(n)"
    )
    summed = connect(postgres_server).query(sql.replace("(1)", "(9007199254740993)"))
    assert summed.to_pylist()[0]["whole"] == 9007199254740995
    assert connect(postgres_server).query(sql + " -- of two").to_pylist() == [
        {"whole": 3, "mean": 1.5, "none": None}
    ]


def test_tables_that_are_read_together_are_of_one_commit(
    postgres_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    warehouse, writer = connect(postgres_server), connect(postgres_server)
    make = Batches(tmp_path)
    dataset = "one_commit"
    writer.commit(make.batch({"r1": {"a": [1.0]}}, dataset=dataset, load_id="load-1"))

    def read_and_commit(layout: Layout, table_name: str) -> pa.Table:
        table = read_table(layout, table_name)
        if table_name == "runs":
            writer.commit(make.batch({"r1": {"a": [2.0]}}, dataset=dataset, load_id="load-2"))
        return table

    monkeypatch.setattr("wb_ops.warehouse.layout.read_table", read_and_commit)
    found = warehouse.read_tables(dataset, ["runs", "_wb_loads"])
    assert found["runs"]["_load_id"].to_pylist() == ["load-1"]
    assert found["_wb_loads"]["load_id"].to_pylist() == ["load-1"]


def test_who_has_waited_sees_what_was_committed_meanwhile(
    new_database: Callable[[], str], tmp_path: Path
):
    """Also on a server whose transactions see, by default, what was there when they began."""
    url, make, dataset = new_database(), Batches(tmp_path), "waited"
    name = urlsplit(url).path.removeprefix("/")
    first, second = connect(url), connect(url)
    with first._connection() as connection, connection.cursor() as cursor:
        cursor.execute(f"alter database {name} set default_transaction_isolation = 'serializable'")
        connection.commit()
    batches = [
        make.batch({"r1": {"a": [1.0]}}, dataset=dataset, load_id=f"load-{n}") for n in (1, 2)
    ]
    first.commit(batches[0])

    def make_second(read: Any) -> Batch:
        seen.append(read(["_wb_loads"])["_wb_loads"]["load_id"].to_pylist())
        return batches[1]

    seen: list[list[str]] = []
    with ThreadPoolExecutor(1) as pool:
        with first._transaction(dataset) as session:
            waits = pool.submit(second.commit_made, dataset, make_second)
            waiting = "select count(*) as n from pg_locks where not granted"
            deadline = time.monotonic() + 60
            while connect(url).query(waiting).to_pylist() == [{"n": 0}]:
                assert time.monotonic() < deadline
                time.sleep(0.05)
            third = make.batch({"r1": {"a": [3.0]}}, dataset=dataset, load_id="load-3")
            write_batch(Layout.read(session, dataset), third)
        waits.result(60)
    assert sorted(seen[0]) == ["load-1", "load-3"]


def test_a_journal_whose_values_were_json_takes_nan_from_now_on(
    postgres_server: str, tmp_path: Path
):
    dataset, warehouse = "older_journal", connect(postgres_server)
    line = {
        "backfill_id": "b1", "run_id": "r1", "target": "summary", "key": "best",
        "event": "intent", "recorded_at": datetime.now(UTC), "new_value": "[1e22]",
    }  # fmt: skip
    warehouse.append(dataset, "_wb_backfills", pa.Table.from_pylist([line], BACKFILLS), owner=OWNER)
    with warehouse._connection() as connection, connection.cursor() as cursor:
        for column in ("old_value", "new_value"):
            cursor.execute(
                f"alter table {dataset}._wb_backfills alter column {column} type json "
                f"using {column}::json"
            )
        connection.commit()
    warehouse.check(dataset, OWNER)
    newer = pa.Table.from_pylist([{**line, "new_value": "NaN"}], BACKFILLS)
    warehouse.append(dataset, "_wb_backfills", newer, owner=OWNER)
    held = warehouse.read_tables(dataset, ["_wb_backfills"])["_wb_backfills"]
    assert sorted(held["new_value"].to_pylist()) == ["NaN", "[1e22]"]
