"""Which runs an export looks at: explicit > partition of the Dag run > stored watermark."""

from __future__ import annotations

import re
from datetime import datetime, time, timedelta
from typing import TYPE_CHECKING, Literal, get_args

from wb_ops.errors import InvalidRequest
from wb_ops.tables.times import parse_server_time

if TYPE_CHECKING:
    from airflow.sdk import Context

Window = Literal["auto", "watermark", "data_interval"]
Bounds = tuple[datetime | None, datetime | None]

# What begins like a day is meant as one: a key such as acme/demo is of another kind.
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}(?!\d)")


def resolve_window(
    window: str, since: datetime | None, until: datetime | None, context: Context
) -> Bounds:
    """Return the window of *created* time (UTC) to export; (None, None): go by the watermark.

    Explicit bounds win. "auto" then takes the day of a Dag run whose partition key is one, such
    as 2026-01-31 or 2026-01-31T00:00:00, and otherwise the watermark. "data_interval" takes the
    Dag run's interval: the runs created in it, and none that only went on in it.

    Raises:
        InvalidRequest: `window` is another word, the partition key is a time and no day, or the
            Dag run has no interval (retry: never).
    """
    if window not in get_args(Window):
        raise InvalidRequest(f"window={window!r}: give one of {', '.join(get_args(Window))}.")
    if since is not None or until is not None:
        return since, until
    if window == "data_interval":
        return _data_interval(context)
    return _partition(context) if window == "auto" else (None, None)


def _partition(context: Context) -> Bounds:
    # The attribute is as old as partitions: Airflow 3.2.
    key = getattr(context["dag_run"], "partition_key", None)
    if key is None or not _DAY.match(key):
        return None, None
    try:
        start = parse_server_time(key)
    except ValueError:
        start = None
    if start is None or start.time() != time.min:
        raise InvalidRequest(
            f"The Dag run's partition_key={key!r} is not a day (UTC), such as 2026-01-31: make it "
            "one (key_format, or StartOfDayMapper in the schedule), give since and until, or "
            'export by the watermark (window="watermark").'
        )
    return start, start + timedelta(days=1)


def _data_interval(context: Context) -> Bounds:
    start = context["dag_run"].data_interval_start
    end = context["dag_run"].data_interval_end
    if start is None or end is None or start >= end:
        raise InvalidRequest(
            f"The Dag run's data interval is {start} to {end}, which holds no time. Cron strings "
            "make empty ones and asset-triggered runs have none: schedule the Dag with "
            'CronDataIntervalTimetable, or export by the watermark (window="auto").'
        )
    return start, end
