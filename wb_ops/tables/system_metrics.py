"""Rows of a run's system stream -> the long table `system_metrics`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta

import pyarrow as pa

from wb_ops.tables.schemas import SYSTEM_METRICS
from wb_ops.tables.values import escape_text, is_media, number_or_none

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# Warehouses and Python hold the years 1 to 9999.
_MAX_EPOCH_S = 253_402_300_799


def system_metrics_table(
    run_id: str, rows: Iterable[Mapping[str, object]], *, sampled: bool, load_id: str | None
) -> pa.Table:
    """Turn system rows as served into one row a value.

    Numbers only, those in plain objects by their dotted keys; a row without a usable `_timestamp`
    has no place in the table and is left out. Of two values of one key at one time the later in
    `rows` stays.

    Args:
        run_id: the run.
        rows: parsed rows of the server: `_timestamp` (s since 1970), `system.<metric>`.
        sampled: whether the server may have left out rows.
        load_id: the load that the rows belong to.

    Source: published runs of old SDKs hold `{"system.network": {"sent": 1, "recv": 2}}`, what
    later ones call `system.network.sent`.
    """
    found: dict[tuple[datetime, str], float] = {}
    for row in rows:
        time = _time(row.get("_timestamp"))
        if time is None:
            continue
        for key, number in _numbers(row):
            if not key.startswith("_"):
                found[time, escape_text(key)[0]] = number
    columns = {
        "run_id": [escape_text(run_id)[0]] * len(found),
        "timestamp": [time for time, _ in found],
        "key": [key for _, key in found],
        "value": list(found.values()),
        "sampled": [sampled] * len(found),
        "_load_id": [load_id] * len(found),
    }
    arrays = [pa.array(columns[field.name], field.type) for field in SYSTEM_METRICS]
    return pa.table(arrays, schema=SYSTEM_METRICS)


def _numbers(row: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, float]]:
    for name, value in row.items():
        if isinstance(value, Mapping) and not is_media(value):
            yield from _numbers(value, f"{prefix}{name}.")
        elif (number := number_or_none(value)) is not None:
            yield prefix + name, number


def _time(value: object) -> datetime | None:
    seconds = number_or_none(value)
    if seconds is None or not 0 <= seconds <= _MAX_EPOCH_S:
        return None
    return _EPOCH + timedelta(microseconds=round(seconds * 1e6))
