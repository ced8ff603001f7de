"""A merged history becomes rows of the history table, and nothing is lost on the way."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wb_ops.tables.history import (
    history_batch,
    history_columns,
    live_table,
    merge_parts,
    select_keys,
    to_rows,
)
from wb_ops.tables.names import assign_names
from wb_ops.tables.schemas import HISTORY, check_schema, history_schema
from wb_ops.tables.values import decode_document

Row = dict[str, object]


def history(*rows: Row) -> pa.Table:
    return merge_parts([live_table([{"_step": i, **row} for i, row in enumerate(rows)])]).table


def stored_cells(row: Row, names: dict[str, str]) -> Row:
    """What a row of the history table says was logged, read as a consumer would."""
    floats = json.loads(str(row["_floats"] or "[]"))
    extra = decode_document(str(row["_extra"] or "{}"), floats, "/_extra")
    assert isinstance(extra, dict)
    numbers = {key: row[name] for key, name in names.items() if row[name] is not None}
    return {**numbers, **extra}


def batch_of(table: pa.Table) -> tuple[list[Row], dict[str, str]]:
    numeric, _ = history_columns(table)
    names = assign_names(numeric, {}, HISTORY.names)
    batch = history_batch("r1", table, names, "load")
    check_schema(batch, history_schema(list(names.values())))
    return batch.to_pylist(), names


def test_numbers_go_to_columns_and_the_rest_to_extra() -> None:
    (row,), _ = batch_of(
        history({"Loss": 1, "train/acc": 0.5, "s": "x", "ok": True, "l": [1, math.nan]})
    )
    assert (row["run_id"], row["_step"], row["_load_id"]) == ("r1", 0, "load")
    assert row["train__acc"] == 0.5
    assert [value for name, value in row.items() if name.startswith("loss_")] == [1.0]
    assert json.loads(row["_extra"]) == {"s": "x", "ok": True, "l": [1, "NaN"]}
    assert json.loads(row["_floats"]) == ["/_extra/l/1"]


def test_rows_of_numbers_have_no_extra() -> None:
    rows, _ = batch_of(history({"x": 1.0}, {"x": math.nan}, {}))
    assert [row["_extra"] for row in rows] == [row["_floats"] for row in rows] == [None] * 3
    assert math.isnan(rows[1]["x"])
    assert rows[2]["x"] is None


def test_a_mixed_key_feeds_its_column_and_extra() -> None:
    table = history({"x": 1}, {"x": "text"}, {"x": "NaN"}, {"x": 2**60 + 1})
    assert history_columns(table) == (["x"], ["x"])
    rows, names = batch_of(table)
    assert [row["x"] for row in rows] == [1.0, None, None, 2.0**60]
    assert [stored_cells(row, names)["x"] for row in rows] == [1.0, "text", "NaN", 2**60 + 1]


def test_large_integers_are_rounded_in_the_column_and_exact_in_extra() -> None:
    rows, _ = batch_of(history({"x": 2**53 + 1}, {"x": 2**53}, {"x": -(2**62)}))
    assert [row["x"] for row in rows] == [2.0**53, 2.0**53, -(2.0**62)]
    assert [row["_extra"] for row in rows] == [
        '{"x":9007199254740993}',
        None,
        f'{{"x":{-(2**62)}}}',
    ]


def test_a_number_without_a_column_goes_to_extra() -> None:
    batch = history_batch("r1", history({"x": math.inf, "y": 1}), {"y": "y"}, None)
    (row,) = batch.to_pylist()
    assert stored_cells(row, {"y": "y"}) == {"x": math.inf, "y": 1.0}


def test_a_column_of_another_run_is_null() -> None:
    batch = history_batch("r1", history({"x": 1.0}), {"x": "x", "a": "a"}, None)
    assert batch.schema.names == history_schema(["a", "x"]).names
    assert batch["a"].to_pylist() == [None]


def test_a_metric_named_like_a_fixed_column_has_its_own() -> None:
    (row,), names = batch_of(history({"run_id": 5, "_extra": 6, "logged_at": 7}))
    assert row["run_id"] == "r1"
    assert stored_cells(row, names) == {"run_id": 5.0, "_extra": 6.0, "logged_at": 7.0}


def test_logged_at_is_the_timestamp_as_a_time() -> None:
    rows, _ = batch_of(history({"_timestamp": 1700000000.123456, "_runtime": 3}))
    assert rows[0]["_timestamp"] == 1700000000.123456
    assert rows[0]["logged_at"] == datetime(2023, 11, 14, 22, 13, 20, 123456, tzinfo=UTC)
    assert rows[0]["_runtime"] == 3.0
    assert rows[0]["_extra"] is None


@pytest.mark.parametrize("timestamp", [math.nan, math.inf, 1e15, -1e15])
def test_a_timestamp_that_is_no_time_is_kept_as_logged(timestamp: float) -> None:
    rows, _ = batch_of(history({"_timestamp": timestamp}))
    assert repr(rows[0]["_timestamp"]) == repr(timestamp)
    assert rows[0]["logged_at"] is None


def test_text_in_an_own_column_is_kept_in_extra() -> None:
    rows, names = batch_of(history({"_timestamp": "noon", "_runtime": [1]}))
    assert stored_cells(rows[0], names) == {"_timestamp": "noon", "_runtime": [1]}
    assert rows[0]["_timestamp"] is rows[0]["logged_at"] is None


def test_an_empty_history_makes_an_empty_batch() -> None:
    assert batch_of(merge_parts([]).table) == ([], {})


def test_keys_never_logged_are_in_no_list() -> None:
    table = merge_parts(
        [pa.table({"_step": [0], "x": pa.nulls(1), "y": pa.nulls(1, pa.float64())})]
    )
    assert history_columns(table.table) == ([], [])


TABLE = history({"a": 1}, {"b": 2}, {"a": 3, "b": 4}, {"c": 5})


@pytest.mark.parametrize(
    ("keys", "require", "steps"),
    [
        (["a", "b"], "any", [0, 1, 2]),
        (["b", "a"], "all", [2]),
        (["a", "zz"], "any", [0, 2]),
        (["a", "zz"], "all", []),
        (["_step"], "any", [0, 1, 2, 3]),
        (["_step", "c", "c"], "any", [3]),
        ([], "all", [0, 1, 2, 3]),
    ],
)
def test_a_selection_has_the_rows_that_hold_the_keys(keys, require, steps) -> None:
    selected = select_keys(TABLE, keys, require)
    assert selected["_step"].to_pylist() == steps
    assert selected.column_names == ["_step", *dict.fromkeys(k for k in keys if k != "_step")]


def test_a_selection_can_be_written_and_read_like_any_history() -> None:
    table = history({"a": [1], "b": "x\x00"}, {"b": 2})
    assert to_rows(select_keys(table, ["b"])) == [{"_step": 0, "b": "x\x00"}, {"_step": 1, "b": 2}]
    assert len(batch_of(select_keys(table, ["a", "zz"]))[0]) == 1


def test_rows_hold_only_what_was_logged_with_its_type() -> None:
    rows = to_rows(history({"i": 1, "f": 1.0, "l": [1]}, {"t": True}))
    assert repr(rows) == "[{'_step': 0, 'i': 1, 'f': 1.0, 'l': [1]}, {'_step': 1, 't': True}]"


scalars = st.booleans() | st.integers() | st.floats() | st.text(max_size=3)
cells = scalars | st.lists(scalars, max_size=2) | st.just({"_type": "x", "v": math.nan})
logged_rows = st.lists(
    st.dictionaries(st.sampled_from(["x", "X", "a/b", "n\x00", "~/"]), cells, max_size=4),
    min_size=1,
    max_size=4,
)


@given(logged_rows)
def test_any_logged_value_is_found_again(rows: list[Row]) -> None:
    stored, names = batch_of(history(*rows))
    unescaped = {key.replace("\u241b0000", "\x00"): name for key, name in names.items()}
    for logged, row in zip(rows, stored, strict=True):
        cells = stored_cells(row, unescaped)
        assert cells.keys() == logged.keys()
        for key, value in logged.items():
            is_int = isinstance(value, int) and not isinstance(value, bool)
            assert (cells[key] == value) if is_int else (repr(cells[key]) == repr(value))
