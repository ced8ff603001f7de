"""The system stream -> rows of `system_metrics`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from wb_ops.tables.schemas import SYSTEM_METRICS, check_schema
from wb_ops.tables.system_metrics import system_metrics_table


def table(*rows: dict[str, Any]):
    made = system_metrics_table("r1", rows, sampled=True, load_id="load-1")
    check_schema(made, SYSTEM_METRICS)
    return made


def test_each_number_is_a_row_that_says_it_was_sampled():
    made = table({"_timestamp": 1700000000.25, "_runtime": 3, "system.cpu": 7, "system.gpu": 0.5})
    time = datetime(2023, 11, 14, 22, 13, 20, 250_000, tzinfo=UTC)
    common = {"run_id": "r1", "timestamp": time, "sampled": True, "_load_id": "load-1"}
    assert made.to_pylist() == [
        {**common, "key": "system.cpu", "value": 7.0},
        {**common, "key": "system.gpu", "value": 0.5},
    ]


def test_of_two_values_at_one_time_the_later_stays():
    made = table({"_timestamp": 1.0, "system.cpu": 1}, {"_timestamp": 1.0, "system.cpu": 2})
    assert made["value"].to_pylist() == [2.0]


def test_numbers_of_nested_objects_have_dotted_keys():
    network = {"sent": 3, "recv": {"all": 0.5, "name": "eth0"}}
    made = table({"_timestamp": 1.0, "_wandb": {"x": 1}, "system.network": network})
    assert dict(zip(made["key"].to_pylist(), made["value"].to_pylist(), strict=True)) == {
        "system.network.sent": 3.0,
        "system.network.recv.all": 0.5,
    }


@pytest.mark.parametrize("time", [None, "now", True, -1, 1e18, float("nan")])
def test_a_row_without_a_usable_time_is_left_out(time: Any):
    assert table({"_timestamp": time, "system.cpu": 1}).num_rows == 0


@pytest.mark.parametrize("value", [None, "x", True, [1], {}, {"_type": "t", "a": 1}, 10**400])
def test_what_is_no_number_is_left_out(value: Any):
    assert table({"_timestamp": 1.0, "system.cpu": value}).num_rows == 0
