"""A list that is read page by page, as it is needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import TypeVar, overload

T = TypeVar("T")


class LazyList(Sequence[T]):
    """Items of the server in its order; none is asked for before it is needed, none twice.

    `len()`, a negative index and an open slice read to the end.
    """

    def __init__(self, read: Callable[[], Iterator[T]], title: str) -> None:
        self._read = read
        self._title = title
        self._pending = read()
        self._loaded: list[T] = []

    def __repr__(self) -> str:
        return f"<{self._title}>"

    def __len__(self) -> int:
        self._load_up_to(None)
        return len(self._loaded)

    def __iter__(self) -> Iterator[T]:
        at = 0
        while self._load_up_to(at + 1):
            yield self._loaded[at]
            at += 1

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> list[T]: ...
    def __getitem__(self, index: int | slice) -> T | list[T]:
        if isinstance(index, slice):
            self._load_up_to(_slice_end(index))
        else:
            self._load_up_to(index + 1 if index >= 0 else None)
        return self._loaded[index]

    def _restart(self) -> None:
        """Forget what was read; the next one who needs something reads anew."""
        self._pending, self._loaded = self._read(), []

    def _load_up_to(self, count: int | None) -> bool:
        """Load until `count` items are there (None: all); whether they are."""
        missing = None if count is None else max(0, count - len(self._loaded))
        try:
            self._loaded.extend(islice(self._pending, missing))
        except BaseException:
            # A generator that raised, or was interrupted, is at its end: read on, it would pass
            # for a short list.
            self._restart()
            raise
        return count is None or len(self._loaded) >= count


def _slice_end(index: slice) -> int | None:
    if index.stop is None or index.stop < 0 or (index.start or 0) < 0 or (index.step or 1) < 0:
        return None
    return int(index.stop)
