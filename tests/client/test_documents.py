"""Splicing: our members change, everybody else's text stays."""

from __future__ import annotations

import json
import math
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wb_ops import MalformedResponse
from wb_ops.client.comparison import holds, same_json
from wb_ops.client.documents import dump_value, splice, split_members

MESSY = (
    '{"a": 1.0, "b":{"_type":"histogram","bins":[1e400, NaN]},'
    '"_wandb": {"runtime":3}, "ü":"\\u00fc"}'
)


def test_others_keep_their_text():
    after = splice(MESSY, {"new": "3", "a": "2"})
    before, now = split_members(MESSY), split_members(after)
    assert now == {**before, "a": "2", "new": "3"}
    assert now["b"] == '{"_type":"histogram","bins":[1e400, NaN]}'
    assert now["ü"] == '"\\u00fc"'


def test_removed_members_are_gone():
    assert set(split_members(splice(MESSY, {}, ["b", "not there"]))) == {"a", "_wandb", "ü"}


@pytest.mark.parametrize("text", [None, "", "null", "{}", " { } "])
def test_nothing_is_an_empty_document(text: str | None):
    assert splice(text, {"a": "1"}) == '{"a": 1}'


@pytest.mark.parametrize(
    "text", ["[1]", '{"a" 1}', '{"a": }', '{"a": 1', "text", '{"a": ' + "[" * 100_000]
)
def test_what_is_no_object_is_refused(text: str):
    with pytest.raises(MalformedResponse):
        split_members(text)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
documents = st.dictionaries(st.text(), values, max_size=5)


@given(documents, documents)
def test_a_splice_is_a_merge(held: dict, ours: dict):
    spliced = splice(json.dumps(held), {name: dump_value(value) for name, value in ours.items()})
    assert same_json(spliced, json.dumps({**held, **ours}))


def test_values_of_numpy_are_plain():
    texts = [dump_value(value) for value in (np.float64(0.5), np.int64(3), [np.bool_(True)])]
    assert texts == ["0.5", "3", "[true]"]
    assert dump_value(math.inf) == "Infinity"
    assert dump_value(np.arange(3)) == "[0, 1, 2]"


def test_sqls_decimals_are_numbers():
    texts = [dump_value(Decimal(text)) for text in ("0.5", "3", "3.0", "1E+2")]
    assert texts == ["0.5", "3", "3", "100"]
    special = [dump_value(Decimal(text)) for text in ("Infinity", "-Infinity", "NaN")]
    assert special == ["Infinity", "-Infinity", "NaN"]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("NaN", "NaN", True), ("NaN", '"NaN"', False), ("1e400", "Infinity", True),
        ("1", "1.0", True), ("1", "true", False),
        ("0.1", "0.10", True), ('{"a":1,"b":2}', '{"b":2,"a":1}', True), ("null", None, False),
        ("9007199254740993", "9007199254740992", False), ('"a"', '"b"', False),
    ],
)  # fmt: skip
def test_sameness_is_typed(one: str, other: str | None, same: bool):
    assert same_json(one, other) is same


@pytest.mark.parametrize(
    ("read", "sent", "is_there"),
    [
        ("NaN", "NaN", True), ('"NaN"', "NaN", True), ("NaN", '"NaN"', False),
        ('{"a": ["-Infinity"]}', '{"a": [-Infinity]}', True), ('"Infinity"', "-Infinity", False),
        (None, "NaN", False), (None, None, True), ("1.0", "1", True),
    ],
)  # fmt: skip
def test_a_special_float_may_come_back_as_a_text(
    read: str | None, sent: str | None, is_there: bool
):
    """W&B's app takes such texts for floats, so a server may store them so."""
    assert holds(read, sent) is is_there
