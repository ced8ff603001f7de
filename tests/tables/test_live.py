"""Live rows become columns without losing a value or a type."""

from __future__ import annotations

import json
import math

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wb_ops.tables.history import live_table, merge_parts, to_rows


def read(*rows: dict[str, object]) -> list[dict[str, object]]:
    """The rows as they come back after a merge."""
    steps = [{"_step": index, **row} for index, row in enumerate(rows)]
    merged = to_rows(merge_parts([live_table([json.dumps(row) for row in steps])]).table)
    return [{key: value for key, value in row.items() if key != "_step"} for row in merged]


def column_type(*values: object) -> pa.DataType:
    return live_table([{"k": value} for value in values]).schema.field("k").type


@pytest.mark.parametrize(
    ("values", "type_"),
    [
        ([1, 2], pa.int64()),
        ([1, 0.5], pa.float64()),
        ([1, "NaN"], pa.float64()),
        (["Infinity", "-Infinity"], pa.string()),
        (["NaN", "other"], pa.string()),
        ([True, False], pa.bool_()),
        ([True, 1], pa.string()),
        ([2**63], pa.string()),
        ([2**53 + 1, 0.5], pa.string()),
    ],
)
def test_a_key_gets_the_narrowest_exact_type(values: list[object], type_: pa.DataType) -> None:
    assert column_type(*values) == type_


def test_text_and_parsed_rows_are_the_same() -> None:
    rows = [{"_step": 0, "a": 1.5}, {"_step": 1, "b": {"c": "x"}}]
    assert live_table(rows).equals(live_table([json.dumps(row) for row in rows]))


def test_bare_special_floats_are_floats() -> None:
    table = live_table(['{"k": NaN}', '{"k": -Infinity}', '{"k": 1}'])
    nan, *others = table["k"].to_pylist()
    assert math.isnan(nan)
    assert others == [-math.inf, 1.0]


def test_null_is_not_logged_but_the_row_stays() -> None:
    assert read({"a": None}, {"a": 1}) == [{}, {"a": 1}]


def test_plain_objects_are_flattened_and_typed_ones_are_not() -> None:
    media = {"_type": "histogram", "values": [1]}
    assert read({"a": {"b": {"c": 1}, "m": media, "l": [{"x": 1}]}, "m": media}) == [
        {"m": media, "a.b.c": 1, "a.m": media, "a.l": [{"x": 1}]}
    ]


@pytest.mark.parametrize(
    "row",
    [
        {"a": {"b": 1}, "a.b": 2},
        {"a": {"b": {"c": 1}, "b.c": 2}},
        {"a": {"b": 1}, "a.b": {"c": 2}},
    ],
)
def test_a_key_whose_dotted_name_is_unclear_stays_whole(row: dict[str, object]) -> None:
    assert read(row)[0]["a"] == row["a"]


def test_two_keys_never_flatten_to_one_name() -> None:
    rows = read({"a": {"b.c": 1}, "a.b": {"c": 2}})
    assert rows == [{"a.b.c": 1, "a.b": {"c": 2}}]


def test_empty_objects_and_lists_are_values() -> None:
    assert read({"a": {}, "b": [], "c": {"d": {}}}) == [{"a": {}, "b": [], "c.d": {}}]


def test_text_that_looks_like_a_typed_object_stays_text() -> None:
    text = '{"_type": "histogram"}'
    assert read({"k": text}) == [{"k": text}]


def test_unstorable_keys_and_values_come_back() -> None:
    row = {
        "\ud800": "\udfff",
        "nul\x00": "a\x00b",
        "\u241b0000": "\u241b",
        "\U0001f600": "\U0001f600",
    }
    assert read(row) == [row]


@pytest.mark.parametrize("row", ["[1]", "1", "null", "{"])
def test_a_row_that_is_no_object_is_an_error(row: str) -> None:
    with pytest.raises(ValueError):
        live_table(['{"_step": 0}', row])


def test_no_rows_make_an_empty_table() -> None:
    assert live_table([]).num_rows == 0


leaves = (
    st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters() | st.just("\ud800"), max_size=3)
    | st.lists(st.integers(), max_size=2)
)
flat_rows = st.dictionaries(st.text("abA/\u241b\x00", max_size=2), leaves, max_size=4)


def text_of(row: dict[str, object]) -> str:
    return json.dumps(row, sort_keys=True)


def is_number_key(key: str, rows: list[dict[str, object]]) -> bool:
    return all(type(row[key]) in (int, float) for row in rows if key in row)


@given(st.lists(flat_rows, max_size=5))
def test_any_rows_come_back(rows: list[dict[str, object]]) -> None:
    """Only an integer may change its type: beside floats it becomes the equal float."""
    for logged, stored in zip(rows, read(*rows), strict=True):
        assert logged.keys() == stored.keys()
        for key, value in logged.items():
            if isinstance(value, int) and is_number_key(key, rows):
                assert stored[key] == value
            else:
                assert text_of({key: stored[key]}) == text_of({key: value})
