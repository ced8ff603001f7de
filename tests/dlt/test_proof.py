"""What is damaged, told from counts alone."""

from __future__ import annotations

import pytest

from wb_ops.dlt.proof import Counts, find_damaged

RUN, ROWS, LONG = ("r1", "runs"), ("r1", "history"), ("r1", "history_long")
GIVEN = {ROWS: ("2", 50), LONG: ("1", 7)}
RECEIPTS: Counts = {ROWS: {"2": 1}}


@pytest.mark.parametrize(
    "found",
    [{ROWS: {"2": 50}}, {ROWS: {"2": 50}, LONG: {"1": 7}}, {ROWS: {"2": 50}, LONG: {"1": 3}}],
)
def test_rows_that_a_newer_load_did_not_replace_may_be_there(found: Counts):
    assert find_damaged(GIVEN, RECEIPTS, found, set()) == set()


@pytest.mark.parametrize(
    "found",
    [{}, {ROWS: {"2": 49}}, {ROWS: {"2": 100}}, {ROWS: {"1": 50}}, {ROWS: {"2": 50, "3": 1}}],
)
def test_other_rows_than_those_that_were_given_are_damage(found: Counts):
    assert find_damaged(GIVEN, RECEIPTS, found, set()) == {ROWS}


@pytest.mark.parametrize("loads", [{}, {"1": 1}, {"2": 2}, {"1": 1, "2": 1}, {"3": 1}])
def test_a_receipt_is_there_once_and_of_the_newest_load(loads: dict[str, int]):
    held = {ROWS: {"2": 50}}
    assert find_damaged(GIVEN, {ROWS: loads}, held, set()) == {ROWS}


def test_a_load_that_counted_nothing_is_trusted_unless_a_newer_one_did():
    assert find_damaged(GIVEN, {ROWS: {"3": 1}, RUN: {"1": 1}}, {}, {"1", "3"}) == set()
    assert find_damaged(GIVEN, {ROWS: {"1": 1}, RUN: {"1": 1}}, {}, {"1"}) == {ROWS}
    assert find_damaged(GIVEN, {**RECEIPTS, RUN: {"2": 1}}, {ROWS: {"2": 50}}, set()) == {RUN}
