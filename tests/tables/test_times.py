"""Times come from the server and go to it in UTC."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from wb_ops.tables.times import filter_time, parse_server_time

EAST = timezone(timedelta(hours=1))


@pytest.mark.parametrize("text", ["2023-11-05T17:46:35", "2023-11-05T18:46:35+01:00"])
def test_a_time_without_zone_is_utc(text: str) -> None:
    assert parse_server_time(text) == datetime(2023, 11, 5, 17, 46, 35, tzinfo=UTC)


def test_a_filter_takes_utc_to_the_microsecond() -> None:
    moment = datetime(2023, 11, 5, 18, 46, 35, 7, tzinfo=EAST)
    assert filter_time(moment) == "2023-11-05T17:46:35.000007Z"


def test_a_filter_takes_years_of_four_digits() -> None:
    assert filter_time(datetime(1, 1, 1, tzinfo=UTC)) == "0001-01-01T00:00:00.000000Z"


def test_a_moment_outside_of_the_calendar_in_utc_is_refused() -> None:
    with pytest.raises(ValueError, match="'0001-01-01T00:00:00\\+01:00' is out of range in UTC"):
        filter_time(datetime(1, 1, 1, tzinfo=EAST))
