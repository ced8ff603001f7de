"""A batch that differs from its schema never reaches a warehouse."""

from __future__ import annotations

import pyarrow as pa
import pytest

from wb_ops.tables.schemas import HISTORY, TABLES, check_schema, history_schema


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_every_key_is_a_column_that_is_never_null(table) -> None:
    assert all(not table.schema.field(name).nullable for name in table.key)


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_every_column_says_what_it_means(table) -> None:
    assert all(field.metadata[b"meaning"] for field in table.schema)


def test_metric_columns_are_sorted_doubles_between_the_fixed_columns() -> None:
    schema = history_schema(["b", "a"])
    assert schema.names == [*HISTORY.names[:5], "a", "b", *HISTORY.names[5:]]
    assert schema.field("a").type == pa.float64()


@pytest.mark.parametrize("names", [["_extra"], ["loss", "LOSS"]])
def test_metric_columns_must_be_distinct_from_all_others(names: list[str]) -> None:
    with pytest.raises(ValueError, match="not distinct"):
        history_schema(names)


SCHEMA = pa.schema([pa.field("a", pa.float64()), pa.field("k", pa.string(), nullable=False)])


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"a": pa.array([1]), "k": ["x"]}, "column a: got int64, expected double"),
        ({"a": [1.0], "k": pa.array([None], pa.string())}, "column k: got 1 nulls"),
        ({"k": ["x"], "a": [1.0]}, "columns are"),
        ({"a": [1.0]}, "columns are"),
    ],
)
def test_a_difference_is_named(columns: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_schema(pa.table(columns), SCHEMA)


def test_an_equal_batch_passes_whatever_its_metadata() -> None:
    table = pa.table({"a": [1.0], "k": ["x"]})
    check_schema(table, SCHEMA)
    check_schema(table.to_batches()[0], SCHEMA)
