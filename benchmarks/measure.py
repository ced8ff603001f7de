"""Interleaved repetitions of ours and the limit, as ratios of wall and CPU time."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Took:
    """Seconds of one repetition: on the wall, and of this process's CPUs."""

    wall_s: float
    cpu_s: float


def once(work: Callable[[], object]) -> Took:
    """Do it and take the time."""
    gc.collect()
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return Took(time.perf_counter() - wall, time.process_time() - cpu)


def compare(
    name: str, ours: Callable[[], object], limit: Callable[[], object], repetitions: int
) -> None:
    """Print medians of ours, the limit and the ratios of pairs."""
    once(ours), once(limit)  # imports, connections, caches of the file system
    pairs = [(once(ours), once(limit)) for _ in range(repetitions)]
    wall = statistics.median(one.wall_s / two.wall_s for one, two in pairs)
    cpu = statistics.median(one.cpu_s / two.cpu_s for one, two in pairs)
    ours_s = statistics.median(one.wall_s for one, _ in pairs)
    limit_s = statistics.median(two.wall_s for _, two in pairs)
    print(
        f"{name}: {wall:.2f}x the limit on the wall, {cpu:.2f}x in CPU "
        f"({ours_s:.2f} s and {limit_s:.2f} s, medians of {repetitions})",
        flush=True,
    )
