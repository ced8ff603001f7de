"""The comparison of `test_corpus.py` tells of one changed value in any table of any destination."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
from compared_in_sql import differences, put_logged, unequal
from opened_warehouses import Opened, opened
from trouble_runs import export, hand_made, seeded

from wb_ops.devserver import DevServer

DATASET = "ann__trials"
BIG = "1180591620717411303424"
TALL = {"numbers", "history_tall"}
# Table, column, what it is changed to, in which rows, and what must be found to differ.
DAMAGES = [
    ("history", "x", "0.0", "run_id = 'floats' and _step = 3", TALL),
    ("history", "x", "1.5", "run_id = 'floats' and _step = 0", TALL),
    ("history", "x", "null", "run_id = 'gaps' and _step = 10", TALL),
    ("history", "_runtime", "1e-300", "run_id = 'times' and _step = 0", {"numbers"}),
    ("history", "_timestamp", "5e-324", "run_id = 'times' and _step = 0", {"numbers"}),
    ("history", "logged_at", "logged_at + interval '1 microsecond'",
     "run_id = 'times' and _step = 2", {"steps and times"}),
    ("history", "_step", "11", "run_id = 'gaps' and _step = 10", {"steps and times", *TALL}),
    ("history", "_extra", f"cast(replace(cast(_extra as varchar), '{BIG}', '{BIG[:-1]}5') as json)",
     "run_id = 'integers' and _step = 5", {"_extra"}),
    ("history_long", "value", "value + 1e-9", "run_id = 'wide' and _step = 1", TALL),
    ("runs", "config", "cast(replace(cast(config as varchar), '1.0', '1') as json)",
     "run_id = 'odd'", {"config"}),
    ("runs", "summary", "cast(replace(cast(summary as varchar), '-0.0', '0.0') as json)",
     "run_id = 'odd'", {"summary"}),
    ("runs", "_floats", "null", "run_id = 'odd'", {"_floats"}),
    ("runs", "notes", "'another'", "run_id = 'odd'", {"labels"}),
    ("runs_flat", "summary__one", "1.5", "run_id = 'odd'", {"numbers of runs_flat"}),
    ("runs_flat", "summary__nan_f3e88910", "'nan'", "run_id = 'odd'", {"texts of runs_flat"}),
    ("system_metrics", "value", "0.0", "run_id = 'times'", {"system metrics"}),
    ("_wb_columns", "original_key", "'y'", "original_key = 'x'", {"numbers"}),
]  # fmt: skip


def test_one_changed_value_is_found(url: str):
    with DevServer() as server:
        logged = seeded(server, list(hand_made()))
        # Few columns: each comparison takes less, and some values are rows of history_long.
        export(server, f"{url}{'&' if '?' in url else '?'}history_columns=20")
    with opened(url, DATASET) as place:
        put_logged(place, logged)
        assert unequal(differences(place, with_view=True)) == {}
        for damage in DAMAGES:
            *change, kinds = damage
            with damaged(place, url, *change):
                assert unequal(differences(place, with_view=True)).keys() == kinds, damage
        assert unequal(differences(place, with_view=True)) == {}


@contextmanager
def damaged(
    place: Opened, url: str, table: str, column: str, value: str, where: str
) -> Iterator[None]:
    kind, _, folder = url.partition(":///")
    if kind in ("parquet", "delta"):
        with rewritten(Path(folder, DATASET, table), column, value, where):
            yield
        return
    name = f"{DATASET}.{table}"
    if kind == "duckdb":
        place.run("begin")
        # Not by UPDATE, which leaves -0.0 where it is told to set 0.0.
        changed = changed_rows(f"{name} where {where}", column, value, where)
        place.run(f"create temporary table changed as {changed}")
        place.run(f"delete from {name} where {where}")
        place.run(f"insert into {name} select * from changed")
        yield
        place.run("rollback")
        return
    place.run("savepoint whole")
    place.run(f'update {name} set "{column}" = {value} where {where}')
    yield
    place.run("rollback to savepoint whole")


def changed_rows(source: str, column: str, value: str, where: str) -> str:
    cell = f'case when {where} then {value} else "{column}" end'
    return f'select * replace ({cell} as "{column}") from {source}'


@contextmanager
def rewritten(folder: Path, column: str, value: str, where: str) -> Iterator[None]:
    """Change the files of a table, and put them back."""
    before = {
        path: path.read_bytes()
        for path in folder.rglob("*.parquet")
        if column in pq.read_schema(path).names
    }
    for path in before:
        with duckdb.connect() as connection:
            source = f"read_parquet('{path}')"
            rows = connection.sql(changed_rows(source, column, value, where)).to_arrow_table()
        pq.write_table(rows.cast(pq.read_schema(path)), path)
    yield
    for path, content in before.items():
        path.write_bytes(content)
