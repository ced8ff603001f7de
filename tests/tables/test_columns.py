"""Whatever Arrow type a column comes in, its values stay what they were."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from decimal import Decimal

import pyarrow as pa
import pytest

from wb_ops.tables.columns import (
    Column,
    canonical_column,
    doubles,
    holds_numbers,
    holds_others,
    inexact_mask,
    json_text,
    unify,
)

MEDIA = '{"_type": "histogram", "values": [1, NaN]}'


def canonical(data: pa.Array, exact_text: bool = False) -> Column:
    return canonical_column(pa.field("k", data.type), pa.chunked_array([data]), exact_text)


def cells(*values: object) -> Column:
    texts = [None if value is None else json_text(value) for value in values]
    return Column(pa.chunked_array([pa.array(texts, pa.string())]), is_json=True)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (pa.array([1, None], pa.uint8()), [1, None]),
        (pa.array([2**64 - 1, 0], pa.uint64()), [2**64 - 1, 0]),
        (pa.array([0.5, None], pa.float32()), [0.5, None]),
        (pa.array(["a", "a"]).dictionary_encode(), ["a", "a"]),
        (pa.array(["a", None], pa.large_string()), ["a", None]),
        (pa.array([b"a", b"\xff"]), ["a", "\udcff"]),
        (pa.array([[1, None], []]), [[1, None], []]),
        (pa.array([{"a": 1, "b": None}, None]), [{"a": 1}, None]),
        (
            pa.array([[("k", [1.5]), ("z", None)]], pa.map_(pa.string(), pa.list_(pa.float64()))),
            [{"k": [1.5], "z": None}],
        ),
        (
            pa.array(
                [[{"m": [(1, True)]}]], pa.list_(pa.struct({"m": pa.map_(pa.int8(), pa.bool_())}))
            ),
            [[{"m": {"1": True}}]],
        ),
        (pa.array([Decimal("1.50")]), ["1.50"]),
        (pa.array([datetime(2024, 1, 2, tzinfo=UTC)]), ["2024-01-02 00:00:00.000000Z"]),
        (pa.nulls(2), [None, None]),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else "",
)
def test_a_column_of_any_type_keeps_its_values(data: pa.Array, expected: list[object]) -> None:
    assert canonical(data).values() == expected


@pytest.mark.skipif(not hasattr(pa, "json_"), reason="pyarrow before 19 reads it as text")
def test_parquets_json_type_is_json_cells() -> None:
    column = canonical(pa.array(['{"a": [1]}', "0.5", "null"], pa.json_()))
    assert column.is_json
    assert column.values() == [{"a": [1]}, 0.5, None]


def test_exported_text_that_is_a_typed_object_is_read_as_one() -> None:
    column = canonical(pa.array([MEDIA, "{broken _type", '{"a": 1, "b": "_type"}', None]))
    media, broken, plain, nothing = column.values()
    assert isinstance(media, dict)
    assert math.isnan(media["values"][1])
    assert (broken, plain, nothing) == ("{broken _type", '{"a": 1, "b": "_type"}', None)


def test_exact_text_stays_text() -> None:
    assert canonical(pa.array([MEDIA]), exact_text=True).values() == [MEDIA]


@pytest.mark.parametrize(
    ("first", "second", "type_"),
    [
        ([1, 2], [0.5], pa.float64()),
        ([2**53], [0.5], pa.float64()),
        ([1], [2], pa.int64()),
        ([True], [None], pa.bool_()),
        ([None], [None], pa.null()),
        ([2**53 + 1], [0.5], pa.string()),
        ([True], [1], pa.string()),
        (["1"], [1], pa.string()),
    ],
)
def test_unified_columns_hold_both_exactly(
    first: list[object], second: list[object], type_: pa.DataType
) -> None:
    column = unify([canonical(pa.array(first)), canonical(pa.array(second))])
    assert column.data.type == type_
    assert column.values() == first + second
    assert column.is_json == (type_ == pa.string())


def test_json_cells_and_text_unify_to_json_cells() -> None:
    column = unify([cells([1], "[1]"), canonical(pa.array(["[1]"])), canonical(pa.nulls(1))])
    assert column.values() == [[1], "[1]", "[1]", None]


MIXED = cells(1, 0.5, math.nan, -math.inf, True, "1", "NaN", [1], {"a": 1}, None, 2**60, 10**400)


@pytest.mark.parametrize(
    ("column", "numbers", "others"),
    [
        (MIXED, True, True),
        (cells(1, math.nan, 2**60), True, False),
        (cells([1], "1", None), False, True),
        (cells(None), False, False),
        (canonical(pa.array([None, 1])), True, False),
        (canonical(pa.array([math.inf])), True, False),
        (canonical(pa.array([None, True])), False, True),
        (canonical(pa.array(["1"])), False, True),
        (canonical(pa.nulls(2)), False, False),
        (canonical(pa.array([None], pa.float64())), False, False),
    ],
)
def test_only_numbers_are_numbers(column: Column, numbers: bool, others: bool) -> None:
    assert (holds_numbers(column), holds_others(column)) == (numbers, others)


def test_doubles_of_a_mixed_column_are_its_numbers() -> None:
    numbers = doubles(MIXED).to_pylist()
    assert math.isnan(numbers.pop(2))
    assert numbers == [1.0, 0.5, -math.inf, *[None] * 6, 2.0**60, None]


def test_inexact_cells_are_non_numbers_and_large_integers() -> None:
    assert inexact_mask(MIXED).to_pylist() == [False] * 4 + [True] * 5 + [False] + [True] * 2


def test_large_integers_of_an_integer_column_are_inexact() -> None:
    column = canonical(pa.array([2**53, -(2**53), 2**53 + 1, -(2**53) - 1, None]))
    assert inexact_mask(column).to_pylist() == [False, False, True, True, False]
    assert doubles(column).to_pylist() == [2.0**53, -(2.0**53), 2.0**53, -(2.0**53), None]
