"""Rows that several threads hold are bounded; a history above the bound is held alone."""

from __future__ import annotations

import threading
import time

import pytest

from wb_ops.client.together import RowsInFlight


@pytest.mark.parametrize(("rows", "most_at_once"), [(3, 3), (6, 1), (100, 1), (0, 8)])
def test_no_more_are_held_than_fit(rows: int, most_at_once: int):
    room, lock = RowsInFlight(10), threading.Lock()
    held: list[int] = []
    now = [0]

    def hold() -> None:
        with room.hold(rows):
            with lock:
                now[0] += 1
                held.append(now[0])
            time.sleep(0.01)
            with lock:
                now[0] -= 1

    threads = [threading.Thread(target=hold) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(held) == 8
    assert max(held) <= most_at_once


def test_an_error_gives_the_room_back():
    room = RowsInFlight(1)
    for _ in range(2):
        with pytest.raises(ValueError, match="mine"), room.hold(5):
            raise ValueError("mine")
