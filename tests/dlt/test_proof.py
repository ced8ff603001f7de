"""What is damaged, told from counts alone."""

from __future__ import annotations

import pytest

from wb_ops.dlt.proof import Counts, find_damaged, order_loads

RUN, ROWS, LONG = ("r1", "runs"), ("r1", "history"), ("r1", "history_long")
GIVEN = {ROWS: ("2", 50), LONG: ("1", 7)}
RECEIPTS: Counts = {ROWS: {"2": 1}}
PLACES, NEXT = order_loads({"1", "2", "3"}, {"1": 1, "2": 2})


@pytest.mark.parametrize(
    "found",
    [{ROWS: {"2": 50}}, {ROWS: {"2": 50}, LONG: {"1": 7}}, {ROWS: {"2": 50}, LONG: {"1": 3}}],
)
def test_rows_that_a_newer_load_did_not_replace_may_be_there(found: Counts):
    assert find_damaged(GIVEN, RECEIPTS, found, set(), PLACES) == set()


@pytest.mark.parametrize(
    "found",
    [{}, {ROWS: {"2": 49}}, {ROWS: {"2": 100}}, {ROWS: {"1": 50}}, {ROWS: {"2": 50, "3": 1}}],
)
def test_other_rows_than_those_that_were_given_are_damage(found: Counts):
    assert find_damaged(GIVEN, RECEIPTS, found, set(), PLACES) == {ROWS}


@pytest.mark.parametrize("loads", [{}, {"1": 1}, {"2": 2}, {"1": 1, "2": 1}, {"3": 1}])
def test_a_receipt_is_there_once_and_of_the_newest_load(loads: dict[str, int]):
    held = {ROWS: {"2": 50}}
    assert find_damaged(GIVEN, {ROWS: loads}, held, set(), PLACES) == {ROWS}


def test_a_load_that_counted_nothing_is_trusted_unless_a_newer_one_did():
    assert find_damaged(GIVEN, {ROWS: {"3": 1}, RUN: {"1": 1}}, {}, {"1", "3"}, PLACES) == set()
    assert find_damaged(GIVEN, {ROWS: {"1": 1}, RUN: {"1": 1}}, {}, {"1"}, PLACES) == {ROWS}
    both = {**RECEIPTS, RUN: {"2": 1}}
    assert find_damaged(GIVEN, both, {ROWS: {"2": 50}}, set(), PLACES) == {RUN}


def test_a_clock_that_was_ahead_does_not_make_a_load_the_newest():
    places, number = order_loads({"9", "2", "3", "4"}, {"9": 1, "2": 2, "3": 3})
    # The fourth has counted nothing.
    assert sorted(places, key=places.__getitem__) == ["9", "2", "3", "4"]
    assert number == 4
    assert order_loads(set(), {}) == ({}, 1)
    # One that has not finished does not count.
    assert order_loads({"1"}, {"1": 1, "2": 2})[1] == 2
    assert NEXT == 3
