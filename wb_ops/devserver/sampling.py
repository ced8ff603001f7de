"""Which rows a sampled answer holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

Row = TypeVar("Row")


def sample_evenly(rows: Sequence[Row], samples: int | None) -> list[Row]:
    """At most ``samples`` rows at even distances, the first and the last among them.

    W&B does the same as soon as more rows lie in the window: a client that trusts such an answer
    loses rows without being told.
    """
    count = len(rows)
    if samples is None or count <= samples:
        return list(rows)
    if samples <= 1:
        return list(rows[: max(samples, 0)])
    return [rows[index * (count - 1) // (samples - 1)] for index in range(samples)]
