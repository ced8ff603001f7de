"""The fast reader of rows gives what the long way gives, or nothing."""

from __future__ import annotations

import json
import math

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wb_ops.tables.live import live_parts, live_table
from wb_ops.tables.merge import merge_parts
from wb_ops.tables.plain_rows import read_plain, read_steps
from wb_ops.tables.values import parse_json

VALUES = st.one_of(
    st.integers(-(2**70), 2**70),
    st.integers(-9, 9),
    st.floats(),
    st.text(max_size=4),
    st.sampled_from(["NaN", "Infinity", "2020-01-01", "2020-01-01 00:00:00", "00:00:01", "1"]),
    st.booleans(),
    st.none(),
    st.just([1]),
    st.just({"x": 1}),
)
ROWS = st.lists(st.dictionaries(st.sampled_from("abcd"), VALUES, max_size=4), max_size=6)


def long_way(texts: list[str]) -> pa.Table:
    """Parsed rows never take the fast way."""
    return live_table([parse_json(text) for text in texts])


def same_table(one: pa.Table, other: pa.Table) -> bool:
    """Equal in schema and values, to the sign of a zero; nan equals nan."""
    return one.schema.equals(other.schema, check_metadata=True) and repr(one.to_pydict()) == repr(
        other.to_pydict()
    )


@given(ROWS)
def test_rows_of_any_kind_become_the_same_table_by_both_ways(rows: list[dict[str, object]]) -> None:
    texts = [json.dumps({"_step": step, **row}) for step, row in enumerate(rows)]

    assert same_table(live_table(texts), long_way(texts))


@given(st.lists(st.lists(st.one_of(st.integers(-(2**60), 2**60), st.floats()), max_size=5)))
def test_numbers_take_the_fast_way_unless_one_would_be_rounded(
    numbers: list[list[float]],
) -> None:
    texts = [json.dumps({"a": number}) for some in numbers for number in some]
    table = read_plain(texts)

    if table is not None:
        assert same_table(table.replace_schema_metadata({b"wb_ops": b"live"}), long_way(texts))
    else:
        assert not texts or any(
            math.isfinite(number) and abs(number) >= 2**53 for some in numbers for number in some
        )


# What one key may hold in one part of the rows, and what in the next.
FORMS = st.sampled_from(
    [[1, 2], [2**53 + 1], [0.5, math.nan], [math.inf], ["a"], ["NaN"], [True], [None], [[1]]]
)


@given(st.lists(st.fixed_dictionaries({"a": FORMS, "b": FORMS}), min_size=1, max_size=4))
def test_rows_that_are_read_part_by_part_mean_the_same_as_together(
    forms: list[dict[str, list[object]]],
) -> None:
    parts = []
    for form in forms:
        rows = range(max(map(len, form.values())))
        cells = [{key: values[row % len(values)] for key, values in form.items()} for row in rows]
        start = 10 * len(parts)
        parts.append([json.dumps({"_step": start + row, **cells[row]}) for row in rows])
    together = merge_parts([live_table([text for texts in parts for text in texts])]).table
    plain = [table for texts in parts if (table := read_plain(texts)) is not None]
    apart = live_parts(plain) if len(plain) == len(parts) else None

    if apart is not None:
        merged = merge_parts(apart, in_order=True).table
        assert same_table(merged.select(together.column_names), together)
    else:
        kinds = [{type(one) for form in forms for one in form[key]} for key in "ab"]
        assert any(kind - {type(None)} not in ({int}, {float}, {str}, {bool}) for kind in kinds)


@pytest.mark.parametrize(
    "texts",
    [
        ['{"a": 1, "a": 2}'],
        ['{"a": 9007199254740993}', '{"a": 0.5}'],
        ['{"a": 18446744073709551616}'],
        ['{"a": "2020-01-01"}'],
        ['{"a": 1}', '{"a": "NaN"}'],
        ['{"a": "\\ud800"}'],
        ['{"a": "\ud800"}'],
        ['{"a": "tab\there"}'],
        ['{"a":\n1}', '{"b": 2}'],
        ['{"a": {"b": 1}}'],
        ['{"a": 1e400}'],
    ],
)
def test_what_arrow_would_guess_or_round_goes_the_long_way(texts: list[str]) -> None:
    assert read_plain(texts) is None
    assert same_table(live_table(texts), long_way(texts))


@pytest.mark.parametrize("texts", [['{"a": 1} {"a": 2}', ""], ["[1]"], ["{"], ["1, 2"]])
def test_texts_that_are_no_row_each_are_refused(texts: list[str]) -> None:
    assert read_plain(texts) is None
    assert read_steps(texts) is None
    with pytest.raises(ValueError, match=r"JSON|Expecting|Extra data"):
        live_table(texts)


def test_a_row_of_special_floats_and_texts_takes_the_fast_way() -> None:
    texts = ['{"_step": 3, "a": NaN, "b": "x\\u0000", "c": true}', '{"_step": 4, "a": -Infinity}']

    table = read_plain(texts)

    assert table is not None
    assert repr(table.to_pylist()) == repr(
        [
            {"_step": 3, "a": math.nan, "b": "x\0", "c": True},
            {"_step": 4, "a": -math.inf, "b": None, "c": None},
        ]
    )
    assert merge_parts([live_table(texts)]).last_step == 4


def test_steps_are_read_whatever_else_a_row_holds() -> None:
    assert read_steps(['{"x": {"_step": 9}, "_step": 1}', '{"_step": 2, "x": [NaN]}']) == [1, 2]


@pytest.mark.parametrize("step", ["null", "1.5", '"1"', "9223372036854775808"])
def test_steps_that_are_no_int64_are_left_to_the_long_way(step: str) -> None:
    assert read_steps(['{"_step": 1}', f'{{"_step": {step}}}']) is None
    assert read_steps(['{"_step": 1}', '{"x": 1}']) is None
