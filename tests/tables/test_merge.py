"""Parts merge to one row a step, as if every row were written into one dict after the other."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wb_ops.tables.history import live_table, merge_parts, to_rows

Row = dict[str, object]


def part(*rows: Row) -> pa.Table:
    """A parquet part: every column in every row."""
    keys = dict.fromkeys(key for row in rows for key in row)
    return pa.table({key: [row.get(key) for row in rows] for key in keys})


def naive_merge(parts: list[list[Row]], live: list[Row]) -> tuple[list[Row], int]:
    """The rule in plain Python: later parts and rows write over earlier ones, key by key."""
    ordered = sorted((p for p in parts if p), key=lambda p: min(int(str(r["_step"])) for r in p))
    steps: dict[object, Row] = {}
    overwritten = 0
    for row in (row for rows in [*ordered, live] for row in rows):
        merged = steps.setdefault(row["_step"], {})
        for key, value in row.items():
            if value is not None:
                overwritten += key in merged and repr(merged[key]) != repr(value)
                merged[key] = value
    return sorted(steps.values(), key=lambda row: int(str(row["_step"]))), overwritten


steps = st.integers(-2, 6)
values = st.none() | st.sampled_from([0.5, 1.5, float("nan"), float("inf")])
texts = st.none() | st.sampled_from(["a", "b"])
lists = st.none() | st.lists(st.integers(0, 1), max_size=1)
rows = st.lists(
    st.fixed_dictionaries({"_step": steps, "x": values, "y": values, "s": texts, "l": lists}),
    max_size=6,
)


@given(st.lists(rows, max_size=3), rows)
def test_a_merge_equals_writing_rows_into_dicts(parts: list[list[Row]], live: list[Row]) -> None:
    # live first: it must come last by what it is, not by where it stands
    merged = merge_parts([live_table(live), *(part(*p) for p in parts)])
    expected, overwritten = naive_merge(parts, live)
    by_key = [dict(sorted(row.items())) for row in to_rows(merged.table)]
    assert repr(by_key) == repr([dict(sorted(row.items())) for row in expected])
    assert merged.overwritten_cells == overwritten
    assert merged.rows_read == len(live) + sum(map(len, parts))
    assert merged.distinct_steps == merged.table.num_rows == len(expected)


@given(st.lists(rows, max_size=3))
def test_merging_a_merge_changes_nothing(parts: list[list[Row]]) -> None:
    table = merge_parts([part(*p) for p in parts]).table
    again = merge_parts([table])
    assert again.overwritten_cells == 0
    assert repr(to_rows(again.table)) == repr(to_rows(table))


@given(st.lists(rows, max_size=3), rows)
def test_rows_that_two_parts_hold_are_counted(parts: list[list[Row]], live: list[Row]) -> None:
    tables = [live_table(live), *(part(*p) for p in parts)]
    once, twice = merge_parts(tables), merge_parts([*tables, *tables])
    assert twice.repeated_rows == once.repeated_rows + once.rows_read
    assert once.repeated_rows <= once.rows_read - once.distinct_steps


def test_a_step_that_was_logged_again_is_no_repeated_row() -> None:
    first, again = {"_step": 0, "x": 1.0, "_timestamp": 1.0}, {"_step": 0, "x": 1.0}
    later = {**first, "_timestamp": 2.0}
    assert merge_parts([part(first), part(later), part(again)]).repeated_rows == 0
    assert merge_parts([part(first, later), part(later)]).repeated_rows == 1


def test_increasing_steps_are_not_copied() -> None:
    x = pa.array([0.5, 1.5])
    merged = merge_parts([pa.table({"_step": [1, 2], "x": x})])
    assert merged.table["x"].chunk(0).buffers()[1].address == x.buffers()[1].address


def test_parts_are_ordered_by_their_lowest_step() -> None:
    merged = merge_parts(
        [
            part({"_step": 5, "x": 1}),
            part({"_step": 9, "x": 3}, {"_step": 1}),
            part({"_step": 4}, {"_step": 9, "x": 2}),
        ]
    )
    assert merged.table.column("_step").to_pylist() == [1, 4, 5, 9]
    assert merged.table.column("x").to_pylist() == [None, None, 1, 2]
    assert (merged.first_step, merged.last_step) == (1, 9)


def test_a_later_null_overwrites_nothing() -> None:
    merged = merge_parts([part({"_step": 0, "x": 1.0}, {"_step": 0, "x": None, "y": 2.0})])
    assert to_rows(merged.table) == [{"_step": 0, "x": 1.0, "y": 2.0}]
    assert merged.overwritten_cells == 0


def test_every_change_of_a_cell_is_counted() -> None:
    merged = merge_parts([part(*({"_step": 0, "x": x} for x in [1.0, 2.0, 2.0, 1.0]))])
    assert merged.overwritten_cells == 2


def test_types_that_differ_between_parts_keep_their_values() -> None:
    merged = merge_parts(
        [
            part({"_step": 0, "x": True}),
            part({"_step": 1, "x": 0.5}),
            part({"_step": 2, "x": "NaN"}),
            part({"_step": 3, "x": 2**60 + 1}),
        ]
    )
    assert [row["x"] for row in to_rows(merged.table)] == [True, 0.5, "NaN", 2**60 + 1]


def test_a_large_integer_stays_exact_beside_floats() -> None:
    merged = merge_parts([part({"_step": 0, "x": 2**53 + 1}), part({"_step": 1, "x": 0.5})])
    assert [row["x"] for row in to_rows(merged.table)] == [2**53 + 1, 0.5]


@pytest.mark.parametrize("type_", [pa.float64(), pa.uint64(), pa.int32()])
def test_steps_of_any_integral_type_are_int64(type_: pa.DataType) -> None:
    merged = merge_parts([pa.table({"x": [1.0, 2.0], "_step": pa.array([0, 7], type_)})])
    assert merged.table.schema.field(0) == pa.field("_step", pa.int64())


@pytest.mark.parametrize("parts", [[], [pa.table({})], [live_table([])]])
def test_no_rows_make_an_empty_history(parts: list[pa.Table]) -> None:
    merged = merge_parts(parts)
    assert merged.table.schema.names == ["_step"]
    assert (merged.rows_read, merged.first_step, merged.last_step) == (0, None, None)


@pytest.mark.parametrize("step", [None, 0.5, float("nan"), "0", True])
def test_a_row_without_an_integral_step_is_an_error(step: object) -> None:
    with pytest.raises(ValueError):
        merge_parts([pa.table({"_step": [step], "x": [1.0]})])


def test_rows_without_a_step_column_are_an_error() -> None:
    with pytest.raises(ValueError, match="no _step"):
        merge_parts([live_table([{"x": 1}])])


def test_an_exported_key_and_a_live_key_with_odd_signs_are_one_key() -> None:
    key = "odd\u241b\x00"
    merged = merge_parts([part({"_step": 0, key: 1}), live_table([{"_step": 1, key: 2}])])
    assert to_rows(merged.table) == [{"_step": 0, key: 1}, {"_step": 1, key: 2}]
