"""How long to wait where W&B or the warehouse asks for it: one rule for tasks and triggers."""

from __future__ import annotations

from wb_ops.errors import AdviceKind, WbOpsError

# The longest wait, whatever a server asks for.
LONGEST_WAIT_S = 3600.0
# The shortest: who is told "0 seconds" again and again must not ask in a tight loop.
SHORTEST_WAIT_S = 0.25
_MAX_FLOOR_DOUBLINGS = 4


def is_throttle(error: WbOpsError) -> bool:
    """Whether it asks to wait, with or without a time: a 429 may come without any header."""
    return AdviceKind.AFTER in (error.kind, error.advice.kind)


def throttle_wait_s(error: WbOpsError, number: int, unnamed_s: float) -> float:
    """Seconds to wait for a throttle, an hour at most.

    Args:
        error: what asks for the wait; the time it names is obeyed.
        number: how many throttles came just before it.
        unnamed_s: the first wait where it names no time; each next one is twice as long.
    """
    asked_s = error.advice.seconds
    if asked_s is None:
        return min(doubled(unnamed_s, number), LONGEST_WAIT_S)
    floor_s = doubled(SHORTEST_WAIT_S, min(number, _MAX_FLOOR_DOUBLINGS))
    return min(max(asked_s, floor_s), LONGEST_WAIT_S)


def doubled(seconds: float, times: int) -> float:
    """Double some seconds so many times; a number that is too large stops at what floats hold."""
    return seconds * 2.0 ** max(0, min(times, 100))
