"""Keys and column names are one to one, in any warehouse, for ever."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wb_ops.tables.names import assign_names

RESERVED = ["run_id", "_step", "logged_at", "_extra"]
keys = st.text(max_size=80) | st.text("aAbB_/. -", max_size=6) | st.sampled_from(RESERVED)


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("loss", "loss"),
        ("train/loss", "train__loss"),
        ("val.acc", "val__acc"),
        ("top-1 acc", "top_1_acc"),
        ("10%", "10_"),
        ("_private", "_private"),
    ],
)
def test_a_name_that_says_its_key_has_no_suffix(key: str, name: str) -> None:
    assert assign_names([key], {}, RESERVED) == {key: name}


@pytest.mark.parametrize(
    ("key", "stem"),
    [
        ("Loss", "loss"),
        ("a__b", "a__b"),
        ("a--b", "a__b"),
        ("na\u00efve", "na_ve"),
        ("\u635f\u5931", "key"),
        ("/", "key"),
        ("", "key"),
        ("run_id", "run_id"),
        ("x" * 61, "x" * 51),
    ],
)
def test_an_ambiguous_name_has_a_hash_of_its_key(key: str, stem: str) -> None:
    (name,) = assign_names([key], {}, RESERVED).values()
    assert re.fullmatch(re.escape(stem) + "_[0-9a-f]{8}", name)


@given(st.sets(keys))
def test_names_are_distinct_valid_and_complete(logged: set[str]) -> None:
    names = assign_names(logged, {}, RESERVED)
    assert set(names) == logged
    assert len({name.lower() for name in names.values()} | set(RESERVED)) == len(logged) + 4
    assert all(re.fullmatch("[a-z0-9_]{1,60}", name) for name in names.values())


@given(st.sets(keys), st.sets(keys))
def test_later_keys_change_no_name(first: set[str], later: set[str]) -> None:
    names = assign_names(first, {}, RESERVED)
    added = assign_names(first | later, names, RESERVED)
    assert set(added) == later - first
    assert not set(added.values()) & set(names.values())


@given(st.lists(keys))
def test_the_order_of_keys_does_not_matter(logged: list[str]) -> None:
    assert assign_names(logged, {}, RESERVED) == assign_names(logged[::-1], {}, RESERVED)


def test_keys_that_are_their_own_name_come_first() -> None:
    names = assign_names(["train-loss", "train_loss"], {}, RESERVED)
    assert names["train_loss"] == "train_loss"
    assert names["train-loss"].startswith("train_loss_")


def test_a_key_named_like_a_hashed_name_takes_nothing_away() -> None:
    hashed = assign_names(["Loss"], {}, RESERVED)["Loss"]
    names = assign_names(["Loss", hashed], {}, RESERVED)
    assert names[hashed] == hashed
    assert names["Loss"].startswith(hashed)
    assert len(names["Loss"]) == len(hashed) + 1


def test_taken_names_are_compared_without_case() -> None:
    assert assign_names(["loss"], {"x": "LOSS"}, [])["loss"] != "loss"
