"""A list that is read page by page, as it is needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import TypeVar, overload

T = TypeVar("T")


class LazyList(Sequence[T]):
    """Items of the server in its order; none is asked for before it is needed, none twice.

    `len()` and a negative index read to the end.
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
        if isinstance(index, slice) or index < 0:
            self._load_up_to(None)
        else:
            self._load_up_to(index + 1)
        return self._loaded[index]

    def _load_up_to(self, count: int | None) -> bool:
        missing = None if count is None else max(0, count - len(self._loaded))
        try:
            self._loaded.extend(islice(self._pending, missing))
        except BaseException:
            # A generator that raised, or was interrupted, is at its end: read on, it would pass
            # for a short list.
            self._pending, self._loaded = self._read(), []
            raise
        return count is None or len(self._loaded) >= count
