"""Which column of the warehouse a metric or leaf gets, and which gets none."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

from wb_ops.tables.names import assign_names
from wb_ops.warehouse.base import staged_key, staged_text


@dataclass(frozen=True, slots=True)
class Placement:
    """Where the dynamic columns of a batch go; all are given by their staged names.

    Attributes:
        known: those that had a column -> its name.
        added: those that get a new one -> its name.
        past_cap: those that get none.
    """

    known: dict[str, str]
    added: dict[str, str]
    past_cap: tuple[str, ...] = ()

    @property
    def columns(self) -> dict[str, str]:
        """All that have a column -> its name."""
        return self.known | self.added


def is_text(staged: str) -> bool:
    """Whether a staged column holds text."""
    return staged == staged_text(staged_key(staged) or "")


def place(
    staged: Iterable[str],
    known: Mapping[str, str],
    reserved: Collection[str],
    count: Callable[[Collection[str]], Mapping[str, int]],
    max_columns: int,
    max_texts: int | None = None,
) -> Placement:
    """Name the new columns of a batch, as many as the table may still get.

    Known columns stay. Of the new ones those that more rows have come first, then those whose
    key sorts first.

    Args:
        staged: the dynamic columns of the batch.
        known: staged column -> name, of all that the table has.
        reserved: names that are taken otherwise.
        count: tells for new columns how many rows of the batch have them; called only where
            not all of them fit.
        max_columns: the most dynamic columns that the table may have.
        max_texts: the most of them that may be text, None for no such limit.
    """
    wanted = set(staged)
    new = sorted(wanted - set(known), key=_order)
    room = max(max_columns - len(known), 0)
    texts = len(new) if max_texts is None else max(max_texts - sum(map(is_text, known)), 0)
    if len(new) > room or sum(map(is_text, new)) > texts:
        rows = count(new)
        new.sort(key=lambda column: (-rows[column], _order(column)))
    chosen: list[str] = []
    for column in new:
        fits = len(chosen) < room and (not is_text(column) or texts > 0)
        if fits:
            chosen.append(column)
            texts -= is_text(column)
    has_column = set(chosen)
    past_cap = tuple(column for column in new if column not in has_column)
    here = {column: known[column] for column in wanted & set(known)}
    return Placement(here, _named(chosen, known, reserved), past_cap)


def _order(staged: str) -> tuple[str, bool]:
    """By key, the numbers of a key before its texts."""
    return staged_key(staged) or "", is_text(staged)


def _named(
    chosen: Collection[str], known: Mapping[str, str], reserved: Collection[str]
) -> dict[str, str]:
    """A key that has a column of its other kind gets `__text` or `__number` behind its name."""
    keys = {staged_key(column) or "" for column in known}
    first: dict[str, str] = {}
    second: dict[str, str] = {}
    for column in sorted(chosen, key=_order):
        key = staged_key(column) or ""
        if key in keys:
            second[column] = f"{key}.{'text' if is_text(column) else 'number'}"
        else:
            first[column] = key
            keys.add(key)
    named: dict[str, str] = {}
    for some in (first, second):
        # No key holds NUL, so none is mistaken for one that has its name.
        taken = {f"\0{name}": name for name in (*known.values(), *named.values())}
        names = assign_names(some.values(), taken, reserved)
        named |= {column: names[key] for column, key in some.items()}
    return named
