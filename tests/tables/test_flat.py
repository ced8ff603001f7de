"""runs_flat: a column for each leaf of config and summary."""

from __future__ import annotations

import json
import math
from typing import Any

import pyarrow as pa

from wb_ops.tables.flat import flat_table, run_leaves
from wb_ops.tables.runs import runs_table


def runs(*documents: tuple[dict[str, Any], dict[str, Any]]) -> pa.Table:
    nodes = [
        {"name": f"r{index}", "config": json.dumps(config), "summaryMetrics": json.dumps(summary)}
        for index, (config, summary) in enumerate(documents)
    ]
    return runs_table(nodes, entity="ann", project="trials", load_id="load-1")


def flat(*documents: tuple[dict[str, Any], dict[str, Any]], **options: Any) -> pa.Table:
    return flat_table(runs(*documents), lambda key: f"n:{key}", lambda key: f"t:{key}", **options)


def test_numbers_are_doubles_and_other_scalars_texts():
    table = flat(
        ({"lr": {"value": 1}, "name": {"value": "a"}, "fast": {"value": True}}, {"loss": 0.5})
    )
    assert table.to_pylist() == [
        {
            "run_id": "r0", "t:config.fast": "true", "n:config.lr": 1.0, "t:config.name": "a",
            "n:summary.loss": 0.5, "_load_id": "load-1",
        }
    ]  # fmt: skip
    assert table.schema.field("n:config.lr").type == pa.float64()


def test_a_leaf_of_both_kinds_has_both_columns():
    table = flat(({"lr": {"value": 0.1}}, {}), ({"lr": {"value": "auto"}}, {}))
    assert table["n:config.lr"].to_pylist() == [0.1, None]
    assert table["t:config.lr"].to_pylist() == [None, "auto"]


def test_nested_objects_are_walked_and_lists_media_and_null_have_no_column():
    document = {
        "optim": {"value": {"lr": 1e-3, "betas": [0.9, 0.99], "none": None, "empty": {}}},
        "image": {"value": {"_type": "image-file", "size": 3}},
    }
    assert set(flat((document, {})).column_names) == {"run_id", "n:config.optim.lr", "_load_id"}


def test_special_floats_stay_floats_and_texts_like_them_texts():
    table = flat(({}, {"a": math.nan, "b": -math.inf, "c": "NaN"}))
    row = table.to_pylist()[0]
    assert math.isnan(row["n:summary.a"])
    assert row["n:summary.b"] == -math.inf
    assert row["t:summary.c"] == "NaN"


def test_two_leaves_of_one_dotted_name_are_both_kept():
    table = flat(({}, {"a.b": 1, "a": {"b": 2}}), ({}, {"a.b": 3}))
    assert table["n:summary.a.b"].to_pylist() == [2.0, 3.0]
    assert table["n:summary.a\\.b"].to_pylist() == [1.0, None]


def test_an_integer_beyond_every_float_is_text():
    assert flat(({}, {"n": 10**400}))["t:summary.n"].to_pylist() == [str(10**400)]


def test_the_most_frequent_leaves_are_kept():
    table = flat(({}, {"a": 1, "z": 1}), ({}, {"b": 1, "z": 1}), max_leaves=2)
    assert table.column_names == ["run_id", "n:summary.a", "n:summary.z", "_load_id"]


def test_a_leaf_that_has_a_column_is_never_past_the_bound():
    documents = ({}, {"a": 1, "z": 1}), ({}, {"b": 1, "z": 1})
    table = flat(*documents, max_leaves=1, known=lambda: {"summary.b", "summary.gone"})
    assert table.column_names == ["run_id", "n:summary.b", "n:summary.z", "_load_id"]


def test_unstorable_names_are_escaped():
    found = run_leaves('{"a\N{SYMBOL FOR ESCAPE}0000":1}', "{}", None)
    assert found == {"config.a\N{SYMBOL FOR ESCAPE}0000": 1.0}


def test_a_special_float_under_an_escaped_name_is_found():
    table = flat(({}, {"a\0b": math.nan, "deep": {"c\0": math.inf}}))
    values = [value for name, value in table.to_pylist()[0].items() if name.startswith("n:")]
    assert [str(value) for value in sorted(values, key=math.isnan)] == ["inf", "nan"]


def test_no_runs_are_no_rows():
    assert flat().to_pylist() == []
